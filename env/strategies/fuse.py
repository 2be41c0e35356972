"""LLM fusion: one more reply, written with the samples in view."""

from __future__ import annotations

from types import MappingProxyType

from env.calls import Call
from env.strategies._base import Knob, Procedure, StagePlan, StageRun, Strategy, single_draw
from env.strategies._parallel import plurality


class Fuse(Strategy):
    """Shows the samples to the critic, whose one reply is the answer; where it cannot be read, their vote is."""

    name = "fuse"
    meaning = "an LLM reads the samples and writes the final answer"
    paper = "Universal self-consistency and fusion: Chen et al. 2023, arXiv 2311.17311; AgentTTS, arXiv 2508.00890"
    knobs = MappingProxyType({"temperature": Knob(0.3, "temperature of the fusing reply", 0.0, 10.0)})

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        if run.samples == 1:
            return (yield from single_draw(run))
        (draws,) = yield [run.ask(run.samples)]
        attempts: list[object] = [draw.text for draw in draws]
        temperature = run.number(self, "temperature")
        ((fused,),) = yield [run.ask_about("fuse", {"attempts": attempts}, 1, temperature=temperature)]  # type: ignore[dict-item]
        answer = run.parse(fused.text)
        return plurality([run.candidate(draw) for draw in draws])[0] if answer is None else answer

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The samples, and one reply to a prompt that holds the stage's prompt and all of them."""
        drawn = Call(plan.setting.model, plan.prompt, plan.output, plan.samples)
        if plan.samples == 1:
            return (drawn,)
        return (drawn, Call(plan.critic, plan.prompt + plan.samples * plan.output, plan.output, 1))
