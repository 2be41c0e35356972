"""Processes that do the same thing at the same moment."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


class Crowd:
    """Fresh processes (nothing is inherited) that start each call together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ProcessPoolExecutor(size, mp_context=multiprocessing.get_context("spawn"))

    def at_once(self, function: Callable[[str], Result], argument: str, folder: Path) -> list[Result]:
        """The results of `function(argument)` in every process; `folder` is an empty one where they meet."""
        calls = [self._pool.submit(_together, function, argument, folder, self.size, n) for n in range(self.size)]
        return [call.result(120) for call in calls]

    def close(self) -> None:
        self._pool.shutdown()


def _together(function: Callable[[str], Result], argument: str, folder: Path, size: int, number: int) -> Result:
    (folder / str(number)).touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < size:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.002)
    return function(argument)
