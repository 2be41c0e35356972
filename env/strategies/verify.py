"""Generative verification: an LLM checks every solution several times, in words."""

from __future__ import annotations

from types import MappingProxyType

from env.calls import Call
from env.strategies._base import Knob, Procedure, StagePlan, StageRun, Strategy, single_draw
from env.strategies._parallel import heaviest
from env.tasks.verdicts import says_right


class Verify(Strategy):
    """S solutions x V checks: a solution's score is the share of its checks that call it right.

    The answer with the largest sum of scores wins, which is the answer whose solutions passed the most checks; a check
    without a verdict counts against. Solutions that are word for word the same are checked once.
    """

    name = "verify"
    meaning = "an LLM checks every sample several times; the answer that passes most checks wins"
    paper = "GenRM: Zhang et al. 2024, arXiv 2408.15240; when to solve, when to verify: arXiv 2504.01005"
    knobs = MappingProxyType({"checks": Knob(2, "checks of every solution", 1, 1000)})

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        if run.samples == 1:
            return (yield from single_draw(run))
        (draws,) = yield [run.ask(run.samples)]
        checks = run.whole(self, "checks")
        texts = list(dict.fromkeys(draw.text for draw in draws if run.parse(draw.text) is not None))
        if not texts:
            return None
        replies = yield [run.ask_about("verify", {"attempt": text}, checks) for text in texts]
        passed = {
            text: sum(says_right(check.text) for check in reply) / checks
            for text, reply in zip(texts, replies, strict=True)
        }
        return heaviest([run.candidate(draw, passed.get(draw.text, 0.0)) for draw in draws])

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The solutions, and for each a prompt that holds it with V replies."""
        drawn = Call(plan.setting.model, plan.prompt, plan.output, plan.samples)
        if plan.samples == 1:
            return (drawn,)
        checks = plan.whole(self, "checks")
        return (drawn, Call(plan.critic, plan.prompt + plan.output, plan.output, checks, plan.samples))
