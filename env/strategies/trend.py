"""Stop on the trend of the lead: when it is clear and holds, or when it no longer grows."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from env.strategies._base import Candidate, Knob, StagePlan
from env.strategies._sequential import WAVE, SequentialStrategy, two_highest


class Trend(SequentialStrategy):
    """Looks at the lead, ``(v1 - v2) / samples``, after each wave.

    Stops where the lead is at least `lead` and did not fall in the last wave; and gives up where, with at least half of
    the samples drawn, it has not grown over the last `patience` waves: what then remains would not settle the vote.
    """

    name = "trend"
    meaning = "vote that stops early once the lead is clear, or no longer grows"
    paper = "Confidence-trend controllers: AutoTTS 2026, arXiv 2605.08083"
    knobs = MappingProxyType(
        {
            "lead": Knob(0.6, "lead at which to stop", 0.0, 1.0),
            "patience": Knob(3, "waves without growth after which to give up", 1, 1000),
            "wave": WAVE,
        }
    )

    def settled(self, plan: StagePlan, waves: Sequence[Sequence[Candidate]]) -> bool:
        """See `SequentialStrategy.settled`."""
        leads: list[float] = []
        seen: list[Candidate] = []
        for wave in waves:
            seen.extend(wave)
            first, second = two_highest(seen)
            leads.append((first - second) / len(seen))
        clear = leads[-1] >= plan.number(self, "lead") and len(leads) > 1 and leads[-1] >= leads[-2]
        patience = plan.whole(self, "patience")
        stale = len(leads) > patience and max(leads[-patience:]) <= leads[-patience - 1]
        return clear or (stale and 2 * len(seen) >= plan.samples)
