"""Early-stopping self-consistency: stop when a whole window agrees."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from env.strategies._base import Candidate, Knob, StagePlan
from env.strategies._sequential import SequentialStrategy


class EarlyStopping(SequentialStrategy):
    """Stops when all samples of the last window gave one and the same readable answer (entropy 0)."""

    name = "esc"
    meaning = "vote that stops early once a window of samples agrees"
    paper = "ESC: Li et al. 2024, arXiv 2401.10480"
    knobs = MappingProxyType({"wave": Knob(4, "samples of a window", 2, 1000)})

    def settled(self, plan: StagePlan, waves: Sequence[Sequence[Candidate]]) -> bool:
        """See `SequentialStrategy.settled`."""
        answers = {c.answer for c in waves[-1]}
        return len(waves[-1]) >= plan.whole(self, "wave") and len(answers) == 1 and None not in answers
