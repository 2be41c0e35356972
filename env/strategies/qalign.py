"""QAlign: Markov chain Monte Carlo over whole answers towards those a verifier likes."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType

from env.backends._base import Message
from env.calls import Call
from env.strategies._base import Ask, Candidate, Knob, Procedure, StagePlan, StageRun, Strategy, single_draw
from env.strategies._parallel import plurality


class QAlign(Strategy):
    """A Metropolis-Hastings chain of `samples` answers whose stationary law is ``p(y) exp(r(y) / beta)``.

    A proposal cuts the current answer at a random word (uniformly) and lets the model write on. It is accepted with
    probability ``min(1, exp((r' - r) / beta) |y| / |y'|)``, |y| in words: the model's own probabilities cancel. The
    vote over the states of the chain counts; quality does not fall as the chain grows.
    """

    name = "qalign"
    meaning = "a chain of rewritten answers that moves towards what the verifier likes, then a vote"
    paper = "QAlign: Faria and Smith 2025, arXiv 2504.03790"
    requires = frozenset({"verifier"})
    knobs = MappingProxyType(
        {"beta": Knob(0.2, "temperature of the reward: low follows the verifier, high the model", 0.001, 100.0)}
    )

    def procedure(self, run: StageRun) -> Procedure:
        """See `Strategy.procedure`."""
        if run.samples == 1:
            return (yield from single_draw(run))
        beta, generator = run.number(self, "beta"), run.generator
        ((draw,),) = yield [run.ask(1)]
        ((judged,),) = yield [run.judge(draw.text)]
        current, reward, tokens = draw.text, judged.score or 0.0, draw.output_tokens
        states = [Candidate(run.parse(current), reward)]
        used: dict[str, int] = {"": 1}
        for _ in range(run.samples - 1):
            words = current.split(" ")
            prefix = " ".join(words[: generator.randrange(len(words))])
            chance = generator.random()
            ((draw,),) = yield [self._continue(run, prefix, used, tokens * len(prefix) // max(1, len(current)))]
            proposal = prefix + draw.text
            ((judged,),) = yield [run.judge(proposal)]
            score = judged.score or 0.0
            ratio = len(words) / max(1, len(proposal.split(" ")))
            if chance < min(1.0, math.exp(min(50.0, (score - reward) / beta)) * ratio):
                current, reward, tokens = proposal, score, draw.output_tokens + (tokens if prefix else 0)
            states.append(Candidate(run.parse(current), reward))
        return plurality(states)[0]

    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The prompt once (kept parts stay in the prefix cache), every proposal whole, each read by the verifier."""
        drawn = Call(plan.setting.model, plan.prompt, plan.output, plan.samples)
        if plan.samples == 1:
            return (drawn,)
        return (drawn, Call(plan.verifier, plan.prompt + plan.output, 0.0, 0, plan.samples))

    @staticmethod
    def _continue(run: StageRun, prefix: str, used: dict[str, int], kept: int) -> Ask:
        """The next unused draw that continues a prefix."""
        first = used.get(prefix, 0)
        used[prefix] = first + 1
        if not prefix:
            return run.ask(1, first=first)
        messages = (*run.messages, Message("assistant", prefix))
        sampling = replace(run.sampling, max_tokens=max(1, run.sampling.max_tokens - kept))
        return Ask(run.setting.model, messages, sampling, 1, first, cached=True)
