"""Races the trials of a batch against the best so far and against each other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from planner.evidence.racing import WRONG_STOP, bets_exclude, cannot_catch_up, lowest_mean

Racing = Literal["off", "exact", "betting"]

FIRST_PART = 8
"""The first look comes after one in so many examples; each further one after twice as many."""

LEAST_EXAMPLES = 16
"""Before the first look."""


def running_order(examples: int, seed: int) -> tuple[int, ...]:
    """Positions of the examples in the order all trials of a study run them; seeded, as the bets need a random one."""
    order = list(range(examples))
    random.Random(f"{seed}/race").shuffle(order)
    return tuple(order)


def look_points(examples: int) -> tuple[int, ...]:
    """Numbers of examples after which trials may be stopped."""
    points: list[int] = []
    point = max(LEAST_EXAMPLES, -(-examples // FIRST_PART))
    while point < examples:
        points.append(point)
        point *= 2
    return tuple(points)


@dataclass
class BatchRace:
    """The race of one batch; see `env.execution.racing.Race`."""

    rule: Racing
    order: Sequence[int]
    looks: Sequence[int]
    incumbent: Sequence[float | None] | None
    """Scores of the best trial that may become the plan, in `order`; None before there is one."""

    among: bool = True
    """Whether trials of the batch stop each other: not where a constraint may yet rule the leader out."""

    settled: Mapping[int, int] = field(default_factory=dict)
    """For positions of the batch that the archive has already (the step runs again after a crash): on how many
    examples they ran. What was decided then is done again."""

    def stopped(self, scores: Mapping[int, Sequence[float | None]]) -> set[int]:
        """See `Race.stopped`."""
        beaten = {
            index
            for index, mine in scores.items()
            if (len(mine) >= self.settled[index] if index in self.settled else self._beaten(index, scores))
        }
        if self.incumbent is None and beaten == set(scores):
            # Somebody has to finish for there to be a plan.
            beaten.discard(max(scores, key=lambda index: (lowest_mean(scores[index], len(scores[index])), -index)))
        return beaten

    def _beaten(self, index: int, scores: Mapping[int, Sequence[float | None]]) -> bool:
        mine, examples = scores[index], len(self.order)
        rivals = [theirs for other, theirs in scores.items() if other != index] if self.among else []
        if self.incumbent is not None and self._by_incumbent(mine, self.incumbent):
            return True
        if any(cannot_catch_up(mine, lowest_mean(theirs, examples), examples) for theirs in rivals):
            return True
        wrong = WRONG_STOP / 2 / max(1, len(rivals))
        return self.rule == "betting" and any(_excluded(mine, theirs, examples, wrong) for theirs in rivals)

    def _by_incumbent(self, mine: Sequence[float | None], incumbent: Sequence[float | None]) -> bool:
        examples = len(self.order)
        if cannot_catch_up(mine, lowest_mean(incumbent, examples), examples):
            return True
        return self.rule == "betting" and _excluded(mine, incumbent, examples, WRONG_STOP / 2)


def _excluded(mine: Sequence[float | None], theirs: Sequence[float | None], examples: int, wrong: float) -> bool:
    """By bets on the paired differences; never where an example failed, as the rest is then no random sample."""
    pairs = list(zip(mine, theirs, strict=False))
    if any(a is None or b is None for a, b in pairs):
        return False
    return bets_exclude([a - b for a, b in pairs if a is not None and b is not None], examples, wrong)
