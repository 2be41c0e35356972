"""One engine for each (checkpoint, device) in a process, shared by all who ask and closed by the last who leaves."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import torch

from env.engine.engine import Engine, resolve_device
from env.errors import CheckpointError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_Key = tuple[str, str, str, int]


@dataclass
class _Shared:
    users: int = 0
    engine: Engine | None = None
    loading: threading.Lock = field(default_factory=threading.Lock)


_engines: dict[_Key, _Shared] = {}
_registry = threading.Lock()
_one_load = threading.Lock()


class EngineLease:
    """A share in an engine; release it once."""

    def __init__(self, engine: Engine, key: _Key) -> None:
        self.engine = engine
        self._key = key
        self._released = False

    def release(self) -> None:
        """Give the share back (blocking); the last one closes the engine. A second call does nothing."""
        with _registry:
            if self._released:
                return
            self._released = True
            engine = _leave(self._key)
        if engine is not None:
            engine.close()


def lease_engine(checkpoint: Path, device: str = "auto", dtype: str = "float32", max_rows: int = 512) -> EngineLease:
    """Load a checkpoint or join who has loaded it (blocking).

    Args:
        checkpoint: folder written by ``save_pretrained``.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: ``float32``, or ``bfloat16`` on CUDA.
        max_rows: draws decoded at once.

    Raises:
        CheckpointError: the engine does not serve this checkpoint here.
    """
    where = resolve_device(device)
    if dtype not in DTYPES or (dtype == "bfloat16" and where.type != "cuda"):
        raise CheckpointError(f"dtype {dtype!r} is not served on {where}; use float32, or bfloat16 on CUDA")
    key = (str(checkpoint.resolve()), str(where), dtype, max_rows)
    with _registry:
        shared = _engines.setdefault(key, _Shared())
        shared.users += 1
    try:
        # One checkpoint at a time: transformers imports its parts on first use, which is not safe from two threads.
        with shared.loading, _one_load:
            if shared.engine is None:
                shared.engine = Engine(checkpoint, str(where), DTYPES[dtype], max_rows)
            return EngineLease(shared.engine, key)
    except BaseException:
        with _registry:
            _leave(key)
        raise


def _leave(key: _Key) -> Engine | None:
    """Count one user less; the engine to close, if that was the last."""
    shared = _engines[key]
    shared.users -= 1
    if shared.users:
        return None
    del _engines[key]
    return shared.engine
