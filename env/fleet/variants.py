"""Variants of a fleet's model: the same checkpoint with other engine knobs, each with a name such as ``s@fp8.seqs64``.

The fleet file lists under a model's ``search`` which values a study may try; a variant's name states them, so that
whoever reads a plan, a log or a bank sees what served it, and nothing but the fleet file is needed to serve it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from env.fleet.errors import FleetError
from env.fleet.spec import FleetModelSpec, knob_label

if TYPE_CHECKING:
    from env.fleet.load import FleetFile

MARK = "@"

ANSWER_KNOBS = ("quantisation",)
"""Knobs that change what a model answers: their variants are other models, with draws of their own."""

SPEED_KNOBS = ("max_num_seqs", "max_num_batched_tokens", "enable_prefix_caching", "enable_chunked_prefill")
"""Knobs that change only how fast answers come: their variants share draws."""


def base_name(name: str) -> str:
    """The model of the fleet file that a variant is one of; the name itself where it is none."""
    return name.partition(MARK)[0]


def variant_name(name: str, knobs: Mapping[str, object]) -> str:
    """A model's (or variant's) name with further knobs; with none, the name as it is."""
    labels = [knob_label(knob, knobs[knob]) for knob in (*ANSWER_KNOBS, *SPEED_KNOBS) if knob in knobs]
    if not labels:
        return name
    return f"{name}{'.' if MARK in name else MARK}{'.'.join(labels)}"


def variant_of(models: Mapping[str, FleetModelSpec], name: str) -> FleetModelSpec:
    """How a variant is served.

    Raises:
        FleetError: no such model, or a knob's value that its ``search`` does not list.
    """
    base, mark, suffix = name.partition(MARK)
    model = models[base]
    return model.model_copy(update=_knobs(base, model, suffix)) if mark else model


def knobs_of(models: Mapping[str, FleetModelSpec], name: str) -> dict[str, object]:
    """The knobs that a variant's name states.

    Raises:
        FleetError: see `variant_of`.
    """
    base, mark, suffix = name.partition(MARK)
    return _knobs(base, models[base], suffix) if mark else {}


def variants(file: FleetFile, name: str, knobs: Iterable[str]) -> dict[str, dict[str, object]]:
    """Every combination of the listed values of some knobs, by variant.

    Args:
        file: the fleet file.
        name: a model, or a variant that has other knobs set.
        knobs: which to vary.

    Raises:
        FleetError: the file lists no values of a knob; with what to add.
    """
    search = file.model(name).search
    wanted = [knob for knob in (*ANSWER_KNOBS, *SPEED_KNOBS) if knob in set(knobs)]
    for knob in wanted:
        if not getattr(search, knob):
            raise FleetError(
                f"{file.path} opens no {knob} of {base_name(name)} to a search; list values under "
                f"models.{base_name(name)}.search.{knob}"
            )
    listed: list[tuple[object, ...]] = [getattr(search, knob) for knob in wanted]
    combinations = (dict(zip(wanted, values, strict=True)) for values in product(*listed))
    return {variant_name(name, one): one for one in combinations}


def plan_file(file: FleetFile, names: Sequence[str]) -> dict[str, Any]:
    """A fleet file that serves only what a plan needs, its knobs set, as plain data.

    A base model's only variant has the base's name; where there are several, ``s@fp8`` becomes ``s-fp8``. Paths are
    made absolute, so that the file may lie anywhere.

    Raises:
        FleetError: the file has no such model or variant.
    """
    raw = file.spec.model_dump(mode="json", exclude_unset=True)
    bases = [base_name(name) for name in names]
    served: dict[str, Any] = {}
    for name, base in zip(names, bases, strict=True):
        file.model(name)  # with its error where there is no such model
        model = {**raw["models"][base], **knobs_of(file.spec.models, name)}
        for unfinished in ("search", "tune"):
            model.pop(unfinished, None)
        checkpoint = file.checkpoint(name)
        if checkpoint is not None and not model["checkpoint"].startswith("embedded:"):
            model["checkpoint"] = str(checkpoint)
        served[base if bases.count(base) == 1 else name.replace(MARK, "-")] = model
    raw["models"] = served
    raw["folder"] = str(file.folder)
    if file.spec.executable and "/" in file.spec.executable[0]:
        raw["executable"] = [str(file.path.parent / file.spec.executable[0]), *file.spec.executable[1:]]
    return raw


def _knobs(base: str, model: FleetModelSpec, suffix: str) -> dict[str, object]:
    open_ = {
        knob_label(knob, value): (knob, value)
        for knob in (*ANSWER_KNOBS, *SPEED_KNOBS)
        for value in getattr(model.search, knob)
    }
    found: dict[str, object] = {}
    for label in suffix.split("."):
        if label not in open_ or open_[label][0] in found:
            raise FleetError(
                f"{base} has no variant {suffix!r}; its search opens {', '.join(open_) or 'nothing'} (one value a "
                "knob, joined by dots)"
            )
        knob, value = open_[label]
        found[knob] = value
    return found
