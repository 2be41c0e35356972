"""Cascade: a larger model answers where the samples of a small one disagree."""

from __future__ import annotations

from types import MappingProxyType

from env.calls import Call
from env.strategies._base import Knob, Procedure, StagePlan, StageRun, Strategy, single_draw
from env.strategies._parallel import plurality


class Cascade(Strategy):
    """Samples the setting's model; where the leader's share is below `agree`, asks the model `to` instead.

    The larger model's answer is the vote of its own samples; where it has none, the small model's vote stands.
    """

    name = "cascade"
    meaning = "vote of the model; where its samples disagree, a larger model answers instead"
    paper = "LLM cascades by answer consistency: Yue et al. 2023, arXiv 2310.03094"
    reads_texts = False
    knobs = MappingProxyType(
        {
            "to": Knob("", "the larger model; the last of the stage's models where not given", model=True),
            "agree": Knob(0.7, "least share of the leading answer at which the small model's vote counts", 0.0, 1.0),
            "samples": Knob(1, "samples of the larger model", 1, 1000),
        }
    )

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        if run.samples == 1:
            return (yield from single_draw(run))
        (draws,) = yield [run.ask(run.samples)]
        answer, votes = plurality([run.candidate(draw) for draw in draws])
        if votes / run.samples >= run.number(self, "agree"):
            return answer
        (draws,) = yield [run.ask(run.whole(self, "samples"), model=self.larger(run))]
        better, _ = plurality([run.candidate(draw) for draw in draws])
        return answer if better is None else better

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """Both models' prompts and samples, as if every query went up."""
        small = Call(plan.setting.model, plan.prompt, plan.output, plan.samples)
        if plan.samples == 1:
            return (small,)
        return (small, Call(self.larger(plan), plan.prompt, plan.output, plan.whole(self, "samples")))

    def larger(self, plan: StagePlan) -> str:
        """The model that is asked where the samples disagree."""
        return str(plan.knob(self, "to")) or plan.stage.models[-1]
