"""Where a rehearsed trial stops: decided at the same numbers of examples and by the same rule as in a study."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.loop.racing import BatchRace, look_points, running_order

Positions = NDArray[np.int64]


def raced(scores: NDArray[Any], incumbent: NDArray[Any] | None, seed: int, racing: bool = True) -> Positions:
    """Positions of the examples a trial runs on: it stops where it can no longer catch up with the best so far.

    Args:
        scores: what the trial would show on every example.
        incumbent: the same of the best trial that ran to its end; None where there is none.
        seed: of the order of examples.
        racing: whether it may stop at all.
    """
    order = np.array(running_order(len(scores), seed))
    if not racing or incumbent is None:
        return order
    looks = look_points(len(scores))
    race = BatchRace("betting", list(order), looks, [float(v) for v in incumbent[order]])
    for look in looks:
        if race.stopped({0: [float(v) for v in scores[order[:look]]]}):
            return order[:look]
    return order
