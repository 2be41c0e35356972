"""Which devices this machine has and how much memory each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from env.fleet.errors import FleetError
from env.fleet.spec import CpuSpec, FleetSpec

_QUERY = ("--query-gpu=index,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Device:
    """One place a model can be put."""

    kind: Literal["cuda", "cpu"]
    index: int
    total: int
    """Bytes of memory it has."""

    share: float = 1.0
    """Part of it that the fleet may claim."""

    @property
    def memory(self) -> int:
        """Bytes that the fleet may claim."""
        return int(self.total * self.share)

    def __str__(self) -> str:
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"


def find_devices(spec: FleetSpec) -> tuple[Device, ...]:
    """The devices of a fleet.

    ``auto`` asks nvidia-smi, then torch, and takes the processor where neither knows a GPU.

    Raises:
        FleetError: the memory of this machine cannot be read.
    """
    wanted = spec.devices
    if isinstance(wanted, tuple):
        return tuple(
            Device("cuda", place if one.index is None else one.index, one.memory, spec.device_share)
            for place, one in enumerate(wanted)
        )
    if wanted == "auto":
        found = _nvidia_smi() or _torch()
        if found:
            return tuple(replace(device, share=spec.device_share) for device in found)
    share = wanted.cpu_share if isinstance(wanted, CpuSpec) else CpuSpec().cpu_share
    return (Device("cpu", 0, system_memory(), share),)


def system_memory() -> int:
    """Bytes of memory this process may use: the machine's, or its control group's limit where that is lower.

    Raises:
        FleetError: the system does not tell.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError) as error:
        raise FleetError("this system does not tell its memory; list `devices` with their memory") from error
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(name).read_text())
        except (OSError, ValueError):
            continue
        total = min(total, limit)
    return total


def parse_nvidia_smi(text: str) -> tuple[Device, ...]:
    """Devices from ``nvidia-smi --query-gpu=index,memory.total --format=csv,noheader,nounits`` (MiB)."""
    devices = []
    for line in text.splitlines():
        index, _, memory = line.partition(",")
        if index.strip().isdigit() and memory.strip().isdigit():
            devices.append(Device("cuda", int(index), int(memory) << 20))
    return tuple(devices)


def visible(devices: Sequence[Device], variable: str | None) -> tuple[Device, ...]:
    """Only the devices that ``CUDA_VISIBLE_DEVICES`` leaves, where it is a list of numbers."""
    if variable is None:
        return tuple(devices)
    numbers = [part.strip() for part in variable.split(",") if part.strip()]
    if not all(part.isdigit() for part in numbers):
        return tuple(devices)
    return tuple(device for device in devices if str(device.index) in numbers)


def _nvidia_smi() -> tuple[Device, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        answer = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return visible(parse_nvidia_smi(answer.stdout), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _torch() -> tuple[Device, ...]:
    try:
        import torch
    except ImportError:
        return ()
    if not torch.cuda.is_available():
        return ()
    sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    return tuple(Device("cuda", number, size) for number, size in enumerate(sizes))
