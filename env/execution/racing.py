"""Runs a batch on a growing part of its examples, so that allocations can be stopped on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol


class Race(Protocol):
    """Decides which allocations of a batch go on."""

    @property
    def order(self) -> Sequence[int]:
        """Positions of all examples in the order they are run."""
        ...

    @property
    def looks(self) -> Sequence[int]:
        """Numbers of examples, ascending and below all of them, after which `stopped` is asked."""
        ...

    def stopped(self, scores: Mapping[int, Sequence[float | None]]) -> set[int]:
        """Allocations that need no further example.

        Args:
            scores: of the allocations that still run, by their position in the batch; in the order of `order`, None
                where an example failed.
        """
        ...


def parts(examples: int, race: Race | None) -> Iterator[tuple[Sequence[int], bool]]:
    """Positions of the examples to run next, and whether they are the last.

    Raises:
        ValueError: the race leaves an example out or names one twice.
    """
    if race is None:
        yield range(examples), True
        return
    if sorted(race.order) != list(range(examples)):
        raise ValueError("a race must order all examples of the batch, each once")
    bounds = [0, *(look for look in race.looks if 0 < look < examples), examples]
    for start, end in pairwise(bounds):
        yield race.order[start:end], end == examples
