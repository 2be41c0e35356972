"""Gathers what the cost models know of a pipeline's models: stated, from checkpoints, from the catalogue."""

from __future__ import annotations

from pathlib import Path

from env.costs._base import CostDataError, CostOptions, ModelProfile
from env.costs.architecture import active_parameters, total_parameters
from env.costs.catalogue import catalogued
from env.costs.checkpoint import read_architecture, read_quantisation
from env.costs.money import read_prices
from env.errors import ApportionError, CheckpointError
from env.spec.architecture import Architecture, Price, Quantisation
from env.spec.checkpoints import resolve_checkpoint
from env.spec.faults import Fault
from env.spec.pipeline import FleetModel, JudgeModel, ModelSpec, PipelineSpec, ServedModel, TorchModel

LARGEST_DISAGREEMENT = 1.3
"""Stated over counted active parameters, either way: card figures round, and some leave embeddings out."""


def model_profiles(pipeline: PipelineSpec, options: CostOptions | None = None) -> dict[str, ModelProfile]:
    """What is known of every model of a pipeline.

    Args:
        pipeline: names the models.
        options: may name a file of prices.

    Raises:
        CheckpointError: a checkpoint's size is not stated and cannot be read.
        CostDataError: no catalogue entry of a name, or the prices cannot be read.
    """
    prices = _prices(options.prices if options else None)
    return {
        name: model_profile(name, judged(pipeline, model), prices.get(name)) for name, model in pipeline.models.items()
    }


def judged(pipeline: PipelineSpec, model: ModelSpec) -> ServedModel:
    """The model that does the work: of a judge the one it asks.

    Raises:
        CostDataError: a judge names no model that is served.
    """
    if not isinstance(model, JudgeModel):
        return model
    inner = pipeline.models.get(model.model)
    if inner is None or isinstance(inner, JudgeModel):
        raise CostDataError(f"the judge asks {model.model!r}, which is no model that draws text")
    return inner


def model_profile(name: str, model: ServedModel, price: Price | None = None) -> ModelProfile:
    """What is known of one model.

    Args:
        name: under which the pipeline knows it.
        model: its spec; what it states goes before what is read.
        price: where the spec states none.

    Raises:
        CheckpointError: its size is not stated and cannot be read.
        CostDataError: no catalogue entry of that name.
    """
    architecture, quantisation = _architecture(model)
    if model.quantisation is not None:
        quantisation = model.quantisation
    active = model.parameters
    if active is None:
        if architecture is None:
            raise CheckpointError(f"{name}: state its parameters, or an architecture to count them from")
        active = float(active_parameters(architecture))
    total = float(total_parameters(architecture)) if architecture is not None else active
    return ModelProfile(name, active, total, architecture, quantisation, model.price or price)


def profile_faults(pipeline: PipelineSpec, options: CostOptions) -> list[Fault]:
    """What is wrong with what the models state, each with the field's path."""
    faults: list[Fault] = []
    try:
        _prices(options.prices)
    except ApportionError as error:
        faults.append(Fault("budget.plan.prices", str(error)))
    for name, model in pipeline.models.items():
        path = f"pipeline.models.{name}"
        if isinstance(model, JudgeModel):
            continue  # its faults are those of the model it asks
        try:
            profile = model_profile(name, model)
        except CostDataError as error:
            faults.append(Fault(f"{path}.architecture", str(error)))
            continue
        except CheckpointError as error:
            faults.append(Fault(f"{path}.parameters", str(error)))
            continue
        if model.parameters is None or model.architecture is None or profile.architecture is None:
            continue
        counted = active_parameters(profile.architecture)
        if not 1 / LARGEST_DISAGREEMENT <= model.parameters / counted <= LARGEST_DISAGREEMENT:
            message = f"{model.parameters:g} is stated and its architecture has {counted:.4g} active; correct one, or "
            faults.append(Fault(f"{path}.parameters", message + "leave this out"))
    return faults


def _architecture(model: ServedModel) -> tuple[Architecture | None, Quantisation]:
    if isinstance(model.architecture, str):
        entry = catalogued(model.architecture)
        return entry.architecture, entry.quantisation
    if model.architecture is not None:
        return model.architecture, Quantisation()
    checkpoint = _checkpoint(model)
    if checkpoint is None:
        return None, Quantisation()
    try:
        return read_architecture(checkpoint), _served(model) or read_quantisation(checkpoint)
    except CheckpointError:
        if model.parameters is None:
            raise
        return None, Quantisation()


def _served(model: ServedModel) -> Quantisation | None:
    """What a fleet's engine makes of plain weights while loading; None where it leaves them as they are."""
    if not isinstance(model, FleetModel):
        return None
    from env.fleet.load import configured_fleet
    from env.fleet.memory import QUANTISED_BYTES

    size = QUANTISED_BYTES.get(configured_fleet().model(model.model).quantisation or "")
    return None if size is None else Quantisation(weights_bits=8 * size)


def _checkpoint(model: ServedModel) -> Path | None:
    """The checkpoint's folder, where it is on this machine."""
    match model:
        case TorchModel():
            return resolve_checkpoint(model.checkpoint)
        case FleetModel():
            from env.fleet.load import configured_fleet

            return configured_fleet().checkpoint(model.model)
        case _:
            return None


def _prices(path: str | None) -> dict[str, Price]:
    # Imported here because data loading itself reads specs.
    from env.tasks.data import confined

    return {} if path is None else dict(read_prices(confined(path)))
