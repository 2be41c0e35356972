"""The command lines that serve a plan's models, as the fleet would start them."""

from __future__ import annotations

import shlex
from pathlib import Path

from env.allocation import Allocation
from env.errors import ApportionError
from env.fleet.launching import vllm_line
from env.fleet.load import FleetFile
from env.fleet.spec import FleetModelSpec, FleetSpec
from env.spec import StudySpec
from env.spec.checkpoints import resolve_checkpoint
from env.spec.pipeline import FleetModel, JudgeModel, ModelSpec, OpenAIModel, TorchModel
from planner.plans import PlanDocument

FIRST_PORT = 8001


def used_models(spec: StudySpec, allocation: Allocation) -> dict[str, ModelSpec]:
    """The models an allocation may ask, verifiers, critics and judges' models included, by name."""
    found: dict[str, ModelSpec] = {}
    for name, setting in allocation.settings:
        stage = spec.pipeline.stage(name)
        knobs = (str(value) for _, value in setting.knobs)
        several = setting.samples > 1
        for named in (setting.model, stage.verifier if several else None, stage.critic if several else None, *knobs):
            model = spec.pipeline.models.get(named or "")
            if isinstance(model, JudgeModel):
                named, model = model.model, spec.pipeline.models.get(model.model)
            if named is not None and model is not None:
                found.setdefault(named, model)
    return found


def ports_of(models: dict[str, ModelSpec]) -> dict[str, int]:
    """A port for each model that serve.sh starts."""
    started = [name for name, model in models.items() if isinstance(model, TorchModel | FleetModel)]
    return {name: FIRST_PORT + number for number, name in enumerate(started)}


def serve_script(spec: StudySpec, document: PlanDocument, models: dict[str, ModelSpec], ports: dict[str, int]) -> str:
    """A shell script that starts a plan's servers and stops them together."""
    lines = [
        "#!/bin/sh",
        f"# Serves the models of a plan of study {document.provenance.study}. Ctrl-C stops them all.",
        "# Each takes a port of its own; on one GPU give each a share: --gpu-memory-utilization.",
        "set -eu",
        'pids=""',
        "trap 'kill $pids 2>/dev/null || true' INT TERM EXIT",
        "",
    ]
    verifiers = {stage.verifier for stage in spec.pipeline.stages}
    served = {engine.model: engine for engine in document.engines}
    for name, model in models.items():
        lines += _lines(name, model, ports, name in verifiers, served[name].command if name in served else "")
    return "\n".join([*lines, "wait", ""])


def _lines(name: str, model: ModelSpec, ports: dict[str, int], verifier: bool, fleet_line: str) -> list[str]:
    if isinstance(model, OpenAIModel):
        return [_comment(name, f"{model.model}, served elsewhere at {model.base_url}")]
    if isinstance(model, FleetModel):
        if not fleet_line or fleet_line.startswith("not known"):
            return [_comment(name, f"{model.model} of the fleet file; its command line is not known. {fleet_line}")]
        return [_comment(name, "as the fleet starts it"), *_started(_on_port(fleet_line, ports[name]))]
    if isinstance(model, TorchModel):
        try:
            folder = resolve_checkpoint(model.checkpoint)
        except ApportionError as error:
            return [_comment(name, str(error))]
        return [_comment(name, model.checkpoint), *_started(_vllm(name, folder, verifier, ports[name]))]
    return [_comment(name, "replayed from recorded draws; nothing serves it")]


def _started(line: str) -> list[str]:
    return [f"{line} &", 'pids="$pids $!"']


def _comment(name: str, text: str) -> str:
    """One line, whatever a spec's texts hold: nothing of them may become a command."""
    return "# " + " ".join(f"{name}: {text}".split())


def _vllm(name: str, folder: Path, verifier: bool, port: int) -> str:
    model = FleetModelSpec(checkpoint=str(folder), runner="pooling" if verifier else "generate")
    file = FleetFile(FleetSpec(engine="vllm", models={name: model}), folder / "fleet.yaml")
    return vllm_line(file, name, port)


def _on_port(line: str, port: int) -> str:
    words = shlex.split(line)
    if "--port" in words:
        words[words.index("--port") + 1] = str(port)
    return shlex.join(words)
