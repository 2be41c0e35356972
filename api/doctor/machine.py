"""The machine: interpreter, torch, limits and room on the disk."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from api.doctor.findings import Finding, note, ok, trouble

LEAST_FREE_BYTES = 1 << 30
LEAST_OPEN_FILES = 1024
"""A service with some hundred clients and model calls at a time needs that many descriptors."""


def python() -> Finding:
    """Version of the interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return ok("python", found)
    return trouble("python", f"{found} is not supported; use 3.11 to 3.13")


def torch() -> Finding:
    """Whether torch is there and sees the accelerator that the machine has."""
    import torch as library

    if library.cuda.is_available():
        return ok("torch", f"{library.__version__}, CUDA: {library.cuda.get_device_name(0)}")
    told = f"{library.__version__}, CPU with {library.get_num_threads()} threads"
    if shutil.which("nvidia-smi"):
        why = "was built without CUDA" if library.version.cuda is None else "finds no usable driver or device"
        return note(
            "torch", f"{told}; the machine has an NVIDIA driver, but this torch {why}: embedded models run slowly"
        )
    return ok("torch", f"{told} (no CUDA device)")


def time_zones() -> Finding:
    """Whether schedules find their time zones."""
    try:
        ZoneInfo("Europe/Berlin")
    except ZoneInfoNotFoundError:
        return trouble("time zones", "the database of time zones is missing; install tzdata (pip install tzdata)")
    return ok("time zones", "found")


def open_files() -> Finding:
    """The limit of file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_OPEN_FILES:
        return note(
            "open files", f"at most {soft} (hard limit {hard}); run `ulimit -n {min(hard, 65536)}` before serving"
        )
    return ok("open files", f"at most {soft}")


def temporary_folder() -> Finding:
    """Whether temporary files can be written."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return trouble(
            "temporary folder", f"{tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a writable folder"
        )
    return ok("temporary folder", tempfile.gettempdir())


def disk(home: Path) -> Finding:
    """Room for the archive, and whether the home folder can be written."""
    folder = home.resolve()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return trouble(
            "disk", f"{folder} cannot be written ({error.strerror}); set APPORTION_HOME to a folder that can"
        )
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free in {folder}"
    if free < LEAST_FREE_BYTES:
        return trouble("disk", f"{text}; an archive of a large study needs more, free some (apportion bank prune)")
    return ok("disk", text)
