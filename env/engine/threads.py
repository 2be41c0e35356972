"""Keeps a thread of ours from splitting work too small to split, without touching any other thread.

``torch.set_num_threads`` would change MKL's count for the whole process. The OpenMP and MKL calls used here are
thread-local by their specifications; where torch is built without them, nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import torch

from env.engine.config import LlamaConfig

_WORTH_SPLITTING = 1 << 14
"""Elements of a layer's MLP matrix from which several threads gain more than they lose by waiting for each other.

Below it one operation of a step takes tens of microseconds: two threads were no faster on free cores, and several times
slower where other processes kept a core busy.
"""


def useful_threads(config: LlamaConfig) -> int:
    """How many of the threads that torch may use are worth using for a model."""
    splits = config.hidden_size * config.intermediate_size >= _WORTH_SPLITTING
    return torch.get_num_threads() if splits else 1


def limit_own_threads(count: int) -> None:
    """Let torch's operations called from this thread use ``count`` threads."""
    torch.get_num_threads()  # torch copies its process-wide number into a new thread at the first question
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        of_openmp, of_mkl = library.omp_set_num_threads, library.MKL_Set_Num_Threads_Local
        of_openmp(ctypes.c_int(count))
        of_mkl(ctypes.c_int(count))
