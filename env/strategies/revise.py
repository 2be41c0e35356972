"""Sequential revision, and mixes of parallel and sequential samples."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from env.calls import Call
from env.strategies._base import Knob, Procedure, StagePlan, StageRun, Strategy, single_draw
from env.strategies._parallel import plurality


class Revise(Strategy):
    """Splits the samples into parallel chains of `rounds` replies: a first attempt, then revisions of the one before.

    The vote over the chains' last readable replies counts. One chain is purely sequential; rounds of 1 are a plain
    vote. Samples that do not fill a chain are not drawn.
    """

    name = "revise"
    meaning = "chains of attempts, each revised by the model, then a vote over the chains"
    paper = "Sequential against parallel: Snell et al. 2024, arXiv 2408.03314"
    knobs = MappingProxyType({"rounds": Knob(4, "replies of a chain", 1, 1000)})

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        if run.samples == 1:
            return (yield from single_draw(run))
        chains, rounds = self._shape(run)
        (draws,) = yield [run.ask(chains)]
        texts = [draw.text for draw in draws]
        last = [run.candidate(draw) for draw in draws]
        used: dict[str, int] = {}
        for _ in range(rounds - 1):
            # Equal attempts, of several chains or come back to in one, share a prompt: each takes a draw of its own.
            order = {text: [i for i, other in enumerate(texts) if other == text] for text in dict.fromkeys(texts)}
            asks = []
            for text, own in order.items():
                ask = run.ask_about("revise", {"attempt": text}, len(own))
                asks.append(replace(ask, first=used.get(text, 0)))
                used[text] = used.get(text, 0) + len(own)
            replies = yield asks
            for own, reply in zip(order.values(), replies, strict=True):
                for chain, draw in zip(own, reply, strict=True):
                    texts[chain] = draw.text
                    revised = run.candidate(draw)
                    last[chain] = last[chain] if revised.answer is None else revised
        return plurality(last)[0]

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """First attempts of one prompt; every revision reads the prompt and the attempt before."""
        chains, rounds = self._shape(plan)
        first = Call(plan.setting.model, plan.prompt, plan.output, chains)
        if rounds == 1:
            return (first,)
        return (first, Call(plan.critic, plan.prompt + plan.output, plan.output, 1, chains * (rounds - 1)))

    def _shape(self, plan: StagePlan) -> tuple[int, int]:
        """(parallel chains, replies of each)."""
        rounds = min(plan.whole(self, "rounds"), plan.samples)
        return plan.samples // rounds, rounds
