"""How a model's server is started: the command line, the environment and the URL it will answer on."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from env.fleet.devices import Device
from env.fleet.errors import FleetError
from env.fleet.load import FleetFile
from env.fleet.memory import Demand
from env.fleet.spec import FleetModelSpec
from env.spec.checkpoints import EMBEDDED


@dataclass(frozen=True)
class Launch:
    """One way to start one model's server."""

    model: str
    command: tuple[str, ...]
    environment: dict[str, str]
    """Only what is added to the environment of this process."""

    base_url: str
    """Without ``/v1``."""

    port: int
    devices: tuple[str, ...]
    api_key: str | None = None
    pooling: bool = False
    """It serves a verifier, which completes no text."""

    sleep: bool = False
    dropped: tuple[str, ...] = ()
    """Variables of this process that the server must not see."""

    def full_environment(self) -> dict[str, str]:
        """The server's whole environment."""
        kept = {name: value for name, value in os.environ.items() if name not in self.dropped}
        return {**kept, **self.environment}

    def shown(self) -> str:
        """As one would type it; without tokens."""
        return shlex.join(self.command)


def find_executable(file: FleetFile) -> tuple[str, ...]:
    """The executable with its first word resolved: relative to the fleet file where it is a path, else on PATH.

    Raises:
        FleetError: there is no such program.
    """
    first, *rest = file.executable
    path = Path(first).expanduser()
    # Not resolved: an environment's interpreter is a symbolic link, and following it would leave the environment.
    found = shutil.which(str(file.path.parent / path) if "/" in first else first)
    if found is None:
        hint = "install vLLM in an environment of its own and name its bin/vllm there" if first == "vllm" else "correct"
        raise FleetError(f"{file.path}: executable: there is no program {first!r}; {hint} (`executable: [...]`)")
    return (os.path.abspath(found), *rest)


def launch_of(file: FleetFile, demand: Demand, devices: Sequence[Device], port: int, sleep: bool = False) -> Launch:
    """The launch of one model.

    Args:
        file: the fleet file.
        demand: what the model needs.
        devices: the devices it was given.
        port: the port it will listen on.
        sleep: ask for vLLM's sleep mode.

    Raises:
        FleetError: no such program, or the token's variable is not set.
    """
    name, model = demand.model, file.model(demand.model)
    key = file.api_key
    host = f"[{file.spec.host}]" if ":" in file.spec.host else file.spec.host
    build = _vllm if file.spec.engine == "vllm" else _torch
    command, environment = build(file, demand, model, devices, port, sleep)
    if devices[0].kind == "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(str(device.index) for device in devices)
    if key is not None:
        environment["VLLM_API_KEY" if file.spec.engine == "vllm" else "APPORTION_ENGINE_API_KEY"] = key
    return Launch(
        model=name,
        command=(*find_executable(file), *command, *model.arguments),
        environment={**environment, **model.environment},
        base_url=f"http://{host}:{port}",
        port=port,
        devices=tuple(str(device) for device in devices),
        api_key=key,
        pooling=model.runner == "pooling",
        sleep=sleep,
        # vLLM lives in an environment of its own, whose interpreter must not find this one's packages.
        dropped=("PYTHONPATH", "PYTHONHOME") if file.spec.engine == "vllm" else (),
    )


def _vllm(
    file: FleetFile, demand: Demand, model: FleetModelSpec, devices: Sequence[Device], port: int, sleep: bool
) -> tuple[list[str], dict[str, str]]:
    checkpoint = file.checkpoint(demand.model)
    command = _vllm_words(file, demand.model, model, port)
    command += ["--shutdown-timeout", str(max(1, int(file.spec.stop_timeout_s * 2 / 3)))]
    environment = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if checkpoint is not None:
        environment["HF_HUB_OFFLINE"] = "1"
    command += _vllm_memory(demand, devices[0])
    if devices[0].kind == "cpu":
        # Automatic binding puts every server on the same first cores.
        environment["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    if sleep:
        command.append("--enable-sleep-mode")
        environment["VLLM_SERVER_DEV_MODE"] = "1"
    return command, environment


def vllm_line(file: FleetFile, name: str, port: int) -> str:
    """What serves a model on some machine with vLLM: the fleet's own command line without what depends on the machine.

    Args:
        file: holds the model.
        name: which.
        port: it will listen on.
    """
    model = file.model(name)
    return shlex.join(["vllm", *_vllm_words(file, name, model, port), *model.arguments])


def _vllm_words(file: FleetFile, name: str, model: FleetModelSpec, port: int) -> list[str]:
    """The arguments that the model and its knobs decide."""
    checkpoint = file.checkpoint(name)
    source = str(checkpoint) if checkpoint is not None else model.checkpoint
    as_module = any("api_server" in word for word in file.executable)
    command = ["--model", source] if as_module else ["serve", source]
    command += ["--served-model-name", name, "--host", file.spec.host, "--port", str(port)]
    command += ["--dtype", model.dtype]
    for flag, value in (
        ("--runner", "pooling" if model.runner == "pooling" else None),
        ("--convert", model.convert),
        ("--max-model-len", model.max_model_len),
        ("--quantization", model.quantisation),
        ("--max-num-seqs", model.max_num_seqs),
        ("--max-num-batched-tokens", model.max_num_batched_tokens),
        ("--tensor-parallel-size", model.tensor_parallel if model.tensor_parallel > 1 else None),
        ("--data-parallel-size", model.data_parallel if model.data_parallel > 1 else None),
    ):
        if value is not None:
            command += [flag, str(value)]
    for switch, wanted in (
        ("enable-prefix-caching", model.enable_prefix_caching),
        ("enable-chunked-prefill", model.enable_chunked_prefill),
    ):
        if wanted is not None:
            command.append(f"--{'' if wanted else 'no-'}{switch}")
    return command


def _vllm_memory(demand: Demand, device: Device) -> list[str]:
    room = demand.kv_room(device.total)
    if device.kind == "cpu" and room is not None:
        return ["--kv-cache-memory-bytes", str(room)]
    # On a GPU the share is the safer limit: vLLM measures its activations and gives the cache what is left.
    share = int(10_000 * demand.claim(device.total) / device.total) / 10_000
    return ["--gpu-memory-utilization", str(max(share, 0.0001))]


def _torch(
    file: FleetFile, demand: Demand, model: FleetModelSpec, devices: Sequence[Device], port: int, sleep: bool
) -> tuple[list[str], dict[str, str]]:
    checkpoint = file.checkpoint(demand.model)
    if checkpoint is None:
        raise FleetError(f"models.{demand.model}: the torch engine serves local folders only; download the checkpoint")
    source, environment = str(checkpoint), {"APPORTION_DATA_ROOT": str(checkpoint.parent)}
    if model.checkpoint.startswith(EMBEDDED):
        source, environment = model.checkpoint, {}
    command = ["engine", "serve", f"{demand.model}={source}", "--host", file.spec.host, "--port", str(port)]
    command += ["--device", devices[0].kind]
    if model.max_num_seqs is not None:
        command += ["--max-rows", str(model.max_num_seqs)]
    return command, environment
