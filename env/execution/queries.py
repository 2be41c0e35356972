"""Runs a stage's strategies on many queries side by side, one round of requests after another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from env.backends import Draw, Message
from env.backends.pool import Backends
from env.bank import PromptKey, SampleBank
from env.calls import Call, merged
from env.errors import ApportionError
from env.execution.drawing import Drawing, Filled, Need, key_of, score_key_of
from env.execution.reading import Reader
from env.spec.stage import StageSpec
from env.strategies import (
    STRATEGIES,
    Ask,
    Candidate,
    Judge,
    ParallelStrategy,
    Procedure,
    Reply,
    Request,
    StageRun,
)

Judgement = tuple[str, bool]
"""(verifier, whether partial answers are judged)."""


@dataclass
class Asked:
    """What a query asked of one prompt."""

    model: str
    prompt_tokens: int
    """Charged: 0 where all of the prompt was in a prefix cache."""

    draws: dict[int, Draw] = field(default_factory=dict)


@dataclass
class Query:
    """One query at one stage while its strategy runs."""

    run: StageRun
    own_key: PromptKey
    """Of the draws of the stage's own prompt by the setting's model."""

    procedure: Procedure
    answer: str | None = None
    failure: str | None = None
    requests: Sequence[Request] = ()
    """Of this round; empty once it has ended."""

    keys: list[PromptKey] = field(default_factory=list)
    asked: dict[PromptKey, Asked] = field(default_factory=dict)
    judged: dict[PromptKey, Call] = field(default_factory=dict)
    """What each score took of its verifier."""

    def calls(self) -> tuple[Call, ...]:
        """Everything asked for, whether newly drawn or found in the bank."""
        drawn = [
            Call(a.model, a.prompt_tokens, sum(d.output_tokens for d in a.draws.values()) / len(a.draws), len(a.draws))
            for a in self.asked.values()
            if a.draws
        ]
        return merged([*drawn, *self.judged.values()])

    @property
    def models(self) -> set[str]:
        """Every model that was asked, verifiers included."""
        return {
            self.run.setting.model,
            *(a.model for a in self.asked.values()),
            *(c.model for c in self.judged.values()),
        }

    def advance(self, replies: Sequence[Reply] | None) -> None:
        """Take the replies of a round (None before the first) and state the requests of the next."""
        try:
            self.requests = next(self.procedure) if replies is None else self.procedure.send(replies)
        except StopIteration as ended:
            self.requests, self.answer = (), ended.value
        except ApportionError as error:
            self.fail(str(error))

    def fail(self, reason: str) -> None:
        """End it without an answer; what it drew is kept."""
        self.requests, self.failure = (), f"{self.run.stage.name}: {reason}"
        self.procedure.close()


class StageQueries:
    """Drives the queries of one stage of a batch to their answers.

    The requests of all queries that run are answered together: the same draws wanted by several are drawn once, models
    see as many requests at a time as there are, and a query that needs more rounds goes on with the others that do.
    """

    def __init__(self, stage: StageSpec, drawing: Drawing, backends: Backends, bank: SampleBank) -> None:
        self._stage = stage
        self._drawing = drawing
        self._backends = backends
        self._bank = bank
        self._prompts: dict[PromptKey, tuple[Message, ...]] = {}
        self.held: dict[PromptKey, tuple[Draw, ...]] = {}
        """Draws held of the stage's own prompts."""

        self.candidates: dict[PromptKey, tuple[Candidate, ...]] = {}
        """The same as candidates, with scores where the bank has them; filled by `run`."""

    def query(self, run: StageRun) -> Query:
        """A query, ready to run.

        Raises:
            ApportionError: the model's backend cannot be opened.
        """
        own = key_of(self._backends, Need(run.setting.model, run.messages, run.sampling, 1))
        self._prompts[own] = run.messages
        return Query(run, own, STRATEGIES[run.setting.strategy].procedure(run))

    async def run(self, queries: Sequence[Query]) -> None:
        """Run queries to their ends; answers and failures stand on them."""
        for query in queries:
            query.advance(None)
        active = [query for query in queries if query.requests]
        while active:
            filled = await self._fill(active)
            scores = await self._fill_scores(active)
            await asyncio.to_thread(self._read, filled, active)
            for query in active:
                replies = self._replies(query, filled, scores)
                if isinstance(replies, str):
                    query.fail(replies)
                else:
                    query.advance(replies)
            active = [query for query in active if query.requests]
        await asyncio.to_thread(self._gather, queries)

    async def _fill(self, active: Sequence[Query]) -> Filled:
        needs: dict[PromptKey, Need] = {}
        for query in active:
            query.keys = []
            for request in query.requests:
                if isinstance(request, Judge):
                    key = score_key_of(self._backends, request.verifier, request.messages, request.partial)
                else:
                    need = Need(request.model, request.messages, request.sampling, request.first + request.samples)
                    key = key_of(self._backends, need)
                    known = needs.setdefault(key, need)
                    known.samples = max(known.samples, need.samples)
                query.keys.append(key)
        return await self._drawing.fill(self._stage.name, needs) if needs else Filled()

    async def _fill_scores(self, active: Sequence[Query]) -> Filled:
        wanted: dict[Judgement, dict[PromptKey, tuple[Message, ...]]] = {}
        for query in active:
            for request, key in zip(query.requests, query.keys, strict=True):
                if isinstance(request, Judge):
                    wanted.setdefault((request.verifier, request.partial), {})[key] = request.messages
        scores = Filled()
        for (verifier, partial), candidates in wanted.items():
            filled = await self._drawing.fill_scores(self._stage.name, verifier, candidates, partial)
            scores.draws.update(filled.draws)
            scores.failures.update({key: f"verifier: {reason}" for key, reason in filled.failures.items()})
        return scores

    def _read(self, filled: Filled, active: Sequence[Query]) -> None:
        """Read the answers of the stage's own draws once, so that the bank can keep them."""
        needing = {q.own_key for q in active if STRATEGIES[q.run.setting.strategy].reads_texts}
        own = {key: draws for key, draws in filled.draws.items() if key in self._prompts}
        for texts_needed in (True, False):
            part = {key: draws for key, draws in own.items() if (key in needing) is texts_needed}
            reading = Reader(self._bank, self._stage.parser, texts_needed).read(part)
            filled.failures.update(reading.unreadable)
            filled.draws.update(dict.fromkeys(reading.unreadable, ()))
            for key, answers in reading.answers.items():
                pairs = list(zip(part[key], answers, strict=True))
                self.held[key] = filled.draws[key] = tuple(
                    replace(draw, kept_answer=answer) if draw.text_dropped else draw for draw, answer in pairs
                )
                self.candidates[key] = tuple(Candidate(a, None, d.logprob, d.output_tokens) for d, a in pairs)

    @staticmethod
    def _replies(query: Query, filled: Filled, scores: Filled) -> list[Reply] | str:
        """One reply for each request, or why there is none."""
        replies: list[Reply] = []
        for request, key in zip(query.requests, query.keys, strict=True):
            if isinstance(request, Judge):
                if key in scores.failures or not scores.draws.get(key):
                    return scores.failures.get(key, "verifier: it gave no score")
                score = scores.draws[key][0]
                tokens = score.prompt_tokens if request.new_tokens is None else request.new_tokens
                # A judge's verdicts are tokens it wrote; other verifiers only read.
                verdicts = (score.output_tokens, 1) if score.output_tokens else (0.0, 0)
                query.judged.setdefault(key, Call(request.verifier, tokens, *verdicts))
                replies.append((score,))
                continue
            reply = _reply(request, filled.draws.get(key, ()))
            if reply is None:
                return filled.failures.get(key, "the model gave fewer draws than asked for")
            asked = query.asked.setdefault(key, Asked(request.model, 0 if request.cached else reply[0].prompt_tokens))
            asked.draws.update((draw.index, draw) for draw in reply)
            replies.append(reply)
        return replies

    def _gather(self, queries: Sequence[Query]) -> None:
        """Add the scores the bank holds to the candidates of prompts that a scoring strategy uses."""
        verifier = self._stage.verifier
        scored = [
            query.own_key
            for query in queries
            if isinstance(s := STRATEGIES[query.run.setting.strategy], ParallelStrategy) and s.scored
        ]
        if verifier is None or not scored:
            return
        keys: dict[PromptKey, list[PromptKey]] = {}
        for key in dict.fromkeys(scored):
            messages = [(*self._prompts[key], Message("assistant", d.text)) for d in self.held.get(key, ())]
            keys[key] = [score_key_of(self._backends, verifier, m) for m in messages]
        held = self._bank.held([one for of_prompt in keys.values() for one in of_prompt])
        for key, of_prompt in keys.items():
            self.candidates[key] = tuple(
                replace(candidate, score=held[one][0].score if one in held else None)
                for candidate, one in zip(self.candidates.get(key, ()), of_prompt, strict=True)
            )


def _reply(request: Ask, draws: Sequence[Draw]) -> Reply | None:
    """The draws asked for; None where one is missing."""
    last = request.first + request.samples
    found = tuple(draw for draw in draws if request.first <= draw.index < last)
    return found if len(found) == request.samples else None
