"""Difficulty-adaptive budgets: a probe estimates how hard the query is, and the level decides how much it gets."""

from __future__ import annotations

from types import MappingProxyType

from env.calls import Call
from env.strategies._base import Knob, Procedure, StagePlan, StageRun, Strategy
from env.strategies._parallel import plurality


class ByDifficulty(Strategy):
    """Draws a probe; the leader's share of it is the level.

    Easy queries (share at least `easy`) get no more than the probe, medium ones (at least `medium`) half of the
    samples, hard ones all. The vote over everything drawn counts.
    """

    name = "by_difficulty"
    meaning = "vote with fewer samples for queries on which a first few samples agree"
    paper = "Compute-optimal scaling by difficulty: Snell et al. 2024, arXiv 2408.03314"
    reads_texts = False
    knobs = MappingProxyType(
        {
            "probe": Knob(4, "samples that estimate the difficulty", 2, 1000),
            "easy": Knob(0.75, "least share of the leader on an easy query", 0.0, 1.0),
            "medium": Knob(0.5, "least share of the leader on a medium query", 0.0, 1.0),
        }
    )

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        probe = min(run.whole(self, "probe"), run.samples)
        (draws,) = yield [run.ask(probe)]
        candidates = [run.candidate(draw) for draw in draws]
        share = plurality(candidates)[1] / probe
        if share < run.number(self, "easy"):
            total = run.samples if share < run.number(self, "medium") else max(probe, -(-run.samples // 2))
            if total > probe:
                (more,) = yield [run.ask(total - probe, first=probe)]
                candidates += [run.candidate(draw) for draw in more]
        return plurality(candidates)[0]

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The prompt once and at most every sample, which only hard queries take."""
        return (Call(plan.setting.model, plan.prompt, plan.output, plan.samples),)
