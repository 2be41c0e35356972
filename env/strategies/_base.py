"""What a strategy is: how a stage spends its samples on one query, as rounds of requests that end in one answer."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from env.allocation import KnobValue, StageSetting
from env.backends._base import Draw, Message, Sampling
from env.calls import Call
from env.errors import ApportionError
from env.spec.stage import PromptKind, StageSpec
from env.tasks.example import JsonValue

Requirement = Literal["verifier", "steps", "ids"]
"""What a stage must state before a strategy can run: a verifier, `step_end`, a parser of ids."""


@dataclass(frozen=True)
class Candidate:
    """One draw as a strategy sees it."""

    answer: str | None
    """Canonical answer; None where the output could not be parsed."""

    score: float | None = None
    """A verifier's value; None where none was asked for."""

    logprob: float | None = None
    """Sum of the log-probabilities of its tokens, in nats; None where the server gives none."""

    tokens: int = 0
    """Generated tokens."""


Outcomes = Mapping[str | None, float]
"""Probability of each aggregated answer; None is "no answer". Sums to 1."""


@dataclass(frozen=True)
class Ask:
    """Draws ``first`` to ``first + samples - 1`` of one prompt."""

    model: str
    messages: tuple[Message, ...]
    """A last message of the assistant is continued."""

    sampling: Sampling
    samples: int
    first: int = 0
    cached: bool = False
    """The prompt's tokens were processed by an earlier request of the same query and stay in a prefix cache, so that
    they are not charged again."""


@dataclass(frozen=True)
class Judge:
    """A verifier's score of the last (assistant) message."""

    verifier: str
    messages: tuple[Message, ...]
    partial: bool = False
    """The message is an answer so far."""

    new_tokens: int | None = None
    """Tokens charged, where the rest is in a prefix cache; all of them where None."""


Request = Ask | Judge
Reply = tuple[Draw, ...]
"""The draws asked for, by index; of a `Judge` one draw that carries the score."""

Procedure = Generator[Sequence[Request], Sequence[Reply], str | None]
"""One query at one stage: yields rounds of requests, is sent one reply for each, returns the canonical answer.

The requests of a round are answered together, and together with those of all other queries that run. What it yields
depends on replies and seed alone, so that running it again after a crash asks for the same draws."""


@dataclass(frozen=True)
class Knob:
    """A dimension of a strategy that a stage can open to the search."""

    default: KnobValue
    meaning: str
    least: float | None = None
    most: float | None = None
    model: bool = False
    """The value is the name of a model."""

    def fault(self, value: KnobValue) -> str | None:
        """Why a value cannot be used, or None."""
        if isinstance(value, str) != isinstance(self.default, str):
            return f"must be a {'text' if isinstance(self.default, str) else 'number'}"
        if isinstance(self.default, int) and not isinstance(value, int):
            return "must be a whole number"
        if isinstance(value, str):
            return None
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}"
        return f"must be at most {self.most:g}" if self.most is not None and value > self.most else None


@dataclass(frozen=True)
class StagePlan:
    """A stage and the setting it is planned with."""

    stage: StageSpec
    setting: StageSetting

    @property
    def samples(self) -> int:
        """The setting's samples."""
        return self.setting.samples

    @property
    def prompt(self) -> float:
        """Planned prompt tokens, with what the knobs add."""
        tokens = float(self.stage.tokens.prompt)
        for name, each in self.stage.tokens.per.items():
            value = self.setting.knob(name)
            tokens += each * value if isinstance(value, int | float) else 0.0
        return tokens

    @property
    def output(self) -> float:
        """Planned tokens of a sample; fewer where the most it may have is a knob and lies below."""
        most = self.setting.knob("max_tokens")
        planned = float(self.stage.tokens.output)
        return min(planned, most) if isinstance(most, int | float) else planned

    @property
    def critic(self) -> str:
        """The model that fuses, revises and verifies."""
        return self.stage.critic or self.setting.model

    @property
    def verifier(self) -> str:
        """The stage's verifier.

        Raises:
            ApportionError: it names none.
        """
        if self.stage.verifier is None:
            raise ApportionError(f"stage {self.stage.name}: {self.setting.strategy} needs a verifier")
        return self.stage.verifier

    def knob(self, strategy: Strategy, name: str) -> KnobValue:
        """A knob of the strategy: as set, else its default."""
        value = self.setting.knob(f"{strategy.name}.{name}")
        return strategy.knobs[name].default if value is None else value

    def whole(self, strategy: Strategy, name: str) -> int:
        """A knob that is a whole number."""
        return int(self.knob(strategy, name))

    def number(self, strategy: Strategy, name: str) -> float:
        """A knob that is a number."""
        return float(self.knob(strategy, name))


@dataclass(frozen=True)
class StageRun(StagePlan):
    """A stage about to run on one query."""

    messages: tuple[Message, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    parse: Callable[[str], str | None] = field(default=lambda text: text)
    """A reply's canonical answer."""

    ask_critic: Callable[[PromptKind, Mapping[str, JsonValue]], tuple[Message, ...]] | None = None
    """Renders one of the critic's prompts."""

    def ask(self, samples: int, first: int = 0, model: str | None = None) -> Ask:
        """Draws of the stage's own prompt."""
        return Ask(model or self.setting.model, self.messages, self.sampling, samples, first)

    def ask_about(self, kind: PromptKind, values: Mapping[str, JsonValue], samples: int, **changes: float) -> Ask:
        """Draws of the critic's prompt of a kind; `values` are its `attempt` or `attempts`."""
        assert self.ask_critic is not None
        sampling = replace(self.sampling, **changes)  # type: ignore[arg-type]
        return Ask(self.critic, self.ask_critic(kind, values), sampling, samples)

    def judge(self, text: str, partial: bool = False, new_tokens: int | None = None) -> Judge:
        """A verifier's score of a reply."""
        return Judge(self.verifier, (*self.messages, Message("assistant", text)), partial, new_tokens)

    def candidate(self, draw: Draw, score: float | None = None) -> Candidate:
        """A draw as a candidate; its answer is the bank's where the text is no longer kept."""
        answer = draw.kept_answer if draw.text_dropped else self.parse(draw.text)
        return Candidate(answer, score, draw.logprob, draw.output_tokens)

    @property
    def generator(self) -> random.Random:
        """Random numbers of this query: the same whenever it is run again."""
        parts = "\x1f".join([*(m.content for m in self.messages), str(self.setting), str(self.sampling.seed)])
        return random.Random(hashlib.sha256(parts.encode("utf-8", "surrogatepass")).digest())


class Strategy(ABC):
    """A way to spend samples; without state, one object serves all queries.

    With one sample every strategy is one plain draw of the stage's prompt.
    """

    name: ClassVar[str]
    """What specs call it."""

    meaning: ClassVar[str]
    """One clause for people and for the agent's prompt."""

    paper: ClassVar[str]
    """Where it comes from."""

    knobs: ClassVar[Mapping[str, Knob]] = {}
    reads_texts: ClassVar[bool] = True
    """Whether it looks at the texts of draws of the stage's prompt, and not only at their answers."""

    requires: ClassVar[frozenset[Requirement]] = frozenset()

    @abstractmethod
    def procedure(self, run: StageRun) -> Procedure:
        """What to ask for on one query; see `Procedure`."""

    @abstractmethod
    def calls(self, plan: StagePlan) -> tuple[Call, ...]:
        """The most a query can ask for, from the planned tokens: the strategy's cost formula."""

    def most_draws(self, plan: StagePlan) -> int:
        """The most draws a query can need, the critic's included."""
        return sum(call.samples * call.prompts for call in self.calls(plan))

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes | None:
        """Distribution of the answer over random subsets of draws of the stage's prompt; None where it has none.

        Only strategies whose answer is a function of exchangeable draws have one: the answer with ``samples`` samples,
        over a uniformly random ordered subset of the candidates.

        Args:
            plan: the stage and its setting, of which `samples` is not looked at.
            candidates: the n draws held.
            samples: k.

        Raises:
            ValueError: k is not in 1..n.
        """
        return None


def check_subset(candidates: Sequence[Candidate], samples: int) -> None:
    """Raise ValueError unless ``1 <= samples <= len(candidates)``."""
    if not 1 <= samples <= len(candidates):
        raise ValueError(f"{samples} samples cannot be taken from {len(candidates)} draws")


def single_draw(run: StageRun) -> Procedure:
    """What every strategy does with one sample."""
    ((draw,),) = yield [run.ask(1)]
    return run.candidate(draw).answer
