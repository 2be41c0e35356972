"""Strategies that draw in waves and stop when the votes are clear: the samples of a setting are the most they take."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

from env.calls import Call
from env.strategies._base import Candidate, Knob, Outcomes, Procedure, StagePlan, StageRun, Strategy, check_subset
from env.strategies._parallel import plurality, subset_outcomes

WAVE = Knob(2, "samples drawn before the votes are looked at again", 1, 1000)


class SequentialStrategy(Strategy):
    """Draws waves of replies to the stage's prompt until a rule says that the vote is settled; then the vote counts."""

    reads_texts = False

    @abstractmethod
    def settled(self, plan: StagePlan, waves: Sequence[Sequence[Candidate]]) -> bool:
        """Whether to stop after these waves; called after every wave but the last."""

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        waves: list[list[Candidate]] = []
        drawn = 0
        while drawn < run.samples:
            wave = self._wave(run, drawn, run.samples)
            (draws,) = yield [run.ask(wave, first=drawn)]
            waves.append([run.candidate(draw) for draw in draws])
            drawn += wave
            if drawn < run.samples and self.settled(run, waves):
                break
        return plurality([c for wave_ in waves for c in wave_])[0]

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The prompt once and at most every sample; what is not drawn shows in the measured cost."""
        return (Call(plan.setting.model, plan.prompt, plan.output, plan.samples),)

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes | None:
        """See `Strategy.outcomes`; by running the rule over ordered subsets of the draws."""
        check_subset(candidates, samples)
        return subset_outcomes(candidates, samples, lambda chosen: self._replay(plan, chosen))

    def _replay(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        waves: list[Sequence[Candidate]] = []
        drawn = 0
        while drawn < len(candidates):
            wave = self._wave(plan, drawn, len(candidates))
            waves.append(candidates[drawn : drawn + wave])
            drawn += wave
            if self.settled(plan, waves):
                break
        return plurality(candidates[:drawn])[0]

    def _wave(self, plan: StagePlan, drawn: int, most: int) -> int:
        return min(plan.whole(self, "wave"), most - drawn)


def two_highest(candidates: Sequence[Candidate]) -> tuple[int, int]:
    """Votes of the leading answer and of the runner-up."""
    counts = [n for _, n in Counter(c.answer for c in candidates if c.answer is not None).most_common(2)]
    return (counts[0] if counts else 0, counts[1] if len(counts) > 1 else 0)
