"""Recorded pools as problems: every allocation's score in closed form from the draws that were recorded of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal

from env.allocation import Allocation, StageSetting
from env.backends.replay_address import Address
from env.backends.replay_pool import PoolError, RecordedPool, open_pool
from env.costs.agenttts import agenttts_units
from env.errors import ApportionError
from env.spec.stage import PlannedTokens, StageSpec
from env.strategies import STRATEGIES, Candidate, Outcomes, ParallelStrategy, StagePlan, single_outcomes
from env.tasks.gold import read_gold
from env.tasks.metrics import exact_match
from env.tasks.parsers import canonical, from_canonical
from planner.bench.problem import EVERYTHING, Conditions, Evaluator
from planner.bench.table import Row, Table, TableProblem

SAMPLES = (1, 2, 4, 8, 16, 32)
"""Numbers of samples offered, as far as every example has so many draws."""

MAX_ALLOCATIONS = 20_000
"""Each is scored in closed form before the search begins."""

NO_TOKENS = PlannedTokens(prompt=1, output=1)
PoolUnit = Literal["tokens", "agenttts"]
Upstream = tuple[str | None, ...]

_SIZE = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])")


@dataclass(frozen=True)
class PoolSource:
    """Which recording, and what may be chosen of it; small enough to be sent to another process."""

    pool: str
    gold: str
    unit: PoolUnit = "tokens"
    samples: tuple[int, ...] = SAMPLES


@dataclass(frozen=True)
class HeldDraws:
    """The draws recorded at one address."""

    candidates: tuple[Candidate, ...]
    prompt_tokens: int


class Recording:
    """The draws of a pool on the examples of its gold table (those of the search split, where it has one)."""

    def __init__(self, pool: RecordedPool, answers: Mapping[str, tuple[str, ...]]) -> None:
        """Of the examples that `answers` has.

        Raises:
            PoolError: stages do not form a chain, or an example has no draws of a model at the first stage.
        """
        self.answers = answers
        self._pool = pool
        self._held: dict[tuple[str, Address], HeldDraws | None] = {}
        self._keys = [(model, address) for model, address in pool.keys if address.example in answers]
        if not self._keys:
            raise PoolError(f"{pool.name}: none of its examples is in the gold table")
        depths: dict[str, set[int]] = {}
        for _, address in self._keys:
            depths.setdefault(address.stage, set()).add(len(address.upstream))
        self.stages = tuple(sorted(depths, key=lambda stage: min(depths[stage])))
        if [depths[stage] for stage in self.stages] != [{i} for i in range(len(self.stages))]:
            raise PoolError(
                f"{pool.name}: upstream must hold the answers of all earlier stages, so that each stage has one more "
                f"than the stage before; found {', '.join(f'{s}: {sorted(d)}' for s, d in depths.items())}"
            )
        self.models = {
            stage: tuple(sorted({model for model, address in self._keys if address.stage == stage}))
            for stage in self.stages
        }
        first = self.stages[0]
        for model in self.models[first]:
            absent = [e for e in answers if self.draws(first, model, e, ()) is None]
            if absent:
                raise PoolError(f"{pool.name}: {model} was not recorded at {first} on example {absent[0]}")

    def draws(self, stage: str, model: str, example: str, upstream: Upstream) -> HeldDraws | None:
        """What was recorded of a model after these answers; None where nothing was."""
        key = (model, Address(stage, example, upstream))
        if key not in self._held:
            rows = self._pool.held(*key)
            found = [self._pool.recorded(rows[draw]) for draw in sorted(rows)]
            candidates = tuple(Candidate(_answer(r.answer), r.score, tokens=r.tokens_out) for r in found)
            self._held[key] = HeldDraws(candidates, found[0].tokens_in) if found else None
        return self._held[key]

    def score(self, answer: str | None, example: str) -> float:
        """Exact match of a canonical answer with the accepted ones."""
        return exact_match(from_canonical(answer), self.answers[example])

    def settings(self, stage: str, samples: Sequence[int]) -> list[StageSetting]:
        """What may be chosen at a stage: strategies that the recorded draws decide, as many samples as all have."""
        found = []
        for model in self.models[stage]:
            held = list(self._of(stage, model))
            most = min(len(h.candidates) for h in held)
            scored = all(c.score is not None for h in held for c in h.candidates)
            for k in (k for k in samples if k <= most):
                found.append(StageSetting(model, "vote", k))
                if scored and k > 1:
                    found.append(StageSetting(model, "best_of_n", k))
        return found

    def mean_tokens(self, stage: str, model: str) -> tuple[float, float]:
        """Tokens of a prompt and of a draw, averaged over what was recorded."""
        held = list(self._of(stage, model))
        written = [c.tokens for h in held for c in h.candidates]
        return sum(h.prompt_tokens for h in held) / len(held), sum(written) / len(written)

    def _of(self, stage: str, model: str) -> Iterator[HeldDraws]:
        for name, address in self._keys:
            if name == model and address.stage == stage:
                held = self.draws(stage, model, address.example, address.upstream)
                assert held is not None
                yield held


def _answer(text: str | None) -> str | None:
    """The canonical answer: a JSON list or object as such, anything else as text; empty ones are none."""
    if text is None:
        return None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        return canonical(value) if value else None
    words = " ".join(text.split())
    return canonical(words) if words else None


def chosen(setting: StageSetting, candidates: Sequence[Candidate]) -> str | None:
    """The answer a stage gives from exactly these draws."""
    strategy = STRATEGIES[setting.strategy]
    assert isinstance(strategy, ParallelStrategy)
    return candidates[0].answer if len(candidates) == 1 else strategy.choose(_plan(setting), candidates)


def _plan(setting: StageSetting) -> StagePlan:
    # The strategies offered decide by answers and scores alone.
    return StagePlan(StageSpec.model_construct(name="recorded", prompt=(), models=(), tokens=NO_TOKENS), setting)


class _Scores:
    """Expected scores over random subsets of the recorded draws, stage by stage."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._outcomes: dict[tuple[int, StageSetting, str, Upstream], Outcomes | None] = {}
        self._values: dict[tuple[str, Upstream, tuple[StageSetting, ...]], float | None] = {}

    def of(self, settings: tuple[StageSetting, ...]) -> float | None:
        """Mean over the examples; None where an answer it can give upstream was not recorded downstream."""
        total = 0.0
        for example in self._recording.answers:
            value = self._value(example, (), settings)
            if value is None:
                return None
            total += value
        return total / len(self._recording.answers)

    def _value(self, example: str, upstream: Upstream, rest: tuple[StageSetting, ...]) -> float | None:
        key = (example, upstream, rest)
        if key not in self._values:
            self._values[key] = self._worked_out(example, upstream, rest)
        return self._values[key]

    def _worked_out(self, example: str, upstream: Upstream, rest: tuple[StageSetting, ...]) -> float | None:
        outcomes = self._distribution(example, upstream, rest[0])
        if outcomes is None:
            return None
        total = 0.0
        for answer, probability in outcomes.items():
            if len(rest) == 1:
                total += probability * self._recording.score(answer, example)
                continue
            after = self._value(example, (*upstream, answer), rest[1:])
            if after is None:
                return None
            total += probability * after
        return total

    def _distribution(self, example: str, upstream: Upstream, setting: StageSetting) -> Outcomes | None:
        key = (len(upstream), setting, example, upstream)
        if key not in self._outcomes:
            stage = self._recording.stages[len(upstream)]
            held = self._recording.draws(stage, setting.model, example, upstream)
            if held is None:
                self._outcomes[key] = None
            elif setting.samples == 1:
                self._outcomes[key] = single_outcomes(held.candidates)
            else:
                strategy = STRATEGIES[setting.strategy]
                self._outcomes[key] = strategy.outcomes(_plan(setting), held.candidates, setting.samples)
        return self._outcomes[key]


def open_recording(source: PoolSource) -> Recording:
    """Read a pool and its gold table.

    Raises:
        ApportionError: one cannot be read, or they do not belong together.
    """
    gold = Path(source.gold)
    if not gold.is_file():
        raise ApportionError(
            f"{gold}: no such file; --gold names the table of right answers of --pool (docs/replay.md)"
        )
    rows = read_gold(gold)
    split = [row for row in rows if row.split == "search"] or [row for row in rows if row.split is None]
    if not split:
        raise PoolError(f"{gold.name}: the column split has no row 'search'")
    answers: dict[str, tuple[str, ...]] = {}
    for row in split:
        raw = row.fields["answer"]
        example = str(row.fields["example"])
        if example in answers:
            raise PoolError(f"{gold.name}: two rows have the example {example}")
        answers[example] = tuple(str(a) for a in raw) if isinstance(raw, list | tuple) else (str(raw),)
    return Recording(open_pool(Path(source.pool)), answers)


def pool_name(source: PoolSource) -> str:
    """The pool's file and folder: `qwen3/pool`."""
    path = Path(source.pool).resolve()
    return f"{path.parent.name}/{path.stem}"


class PoolProblem(TableProblem):
    """A search over a pool: true is the expectation over subsets of all its draws, a trial shows one such subset.

    Costs are those of the recorded tokens' means. A verifier's passes cost nothing here: a pool does not say.
    """

    description = "Recorded draws of a pipeline."

    def __init__(self, source: PoolSource, limit: float | None = None) -> None:
        """Of the allocations that cost at most `limit` per query; of all where it is None.

        Raises:
            ApportionError: the pool or gold table cannot be used, a model's size is not known, no allocation fits the
                budget and was recorded, or there are too many.
        """
        self.recording = open_recording(source)
        self.unit = source.unit
        name = pool_name(source)
        prices = {
            stage: {s: self._price(stage, s) for s in self.recording.settings(stage, source.samples)}
            for stage in self.recording.stages
        }
        empty = [stage for stage, of in prices.items() if not of]
        if empty:
            raise PoolError(f"{name}: {empty[0]} has no {min(source.samples)} draws on every example")
        table = _scored(name, self.recording, prices, limit)
        super().__init__(table, max(row.cost for row in table.rows) if limit is None else limit, source.unit)

    def evaluator(self, seed: int, conditions: Conditions = EVERYTHING) -> Evaluator:
        """See `Problem.evaluator`."""
        # Imported here: trials know their problem.
        from planner.bench.recorded_trials import PoolTrials

        return PoolTrials(self, seed, conditions)

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """Their ids, in the gold table's order."""
        return tuple(self.recording.answers)

    def _price(self, stage: str, setting: StageSetting) -> float:
        prompt, output = self.recording.mean_tokens(stage, setting.model)
        if self.unit == "tokens":
            return prompt + setting.samples * output
        return agenttts_units(_parameters(setting.model), prompt, max(output, 1e-9), setting.samples)


def _parameters(model: str) -> float:
    found = _SIZE.search(model)
    if found is None:
        raise ApportionError(
            f"AgentTTS units need each model's parameters, and {model!r} does not state them as in 'Qwen3-4B'; "
            "use --unit tokens"
        )
    return float(found.group(1)) * 1e9


def _scored(
    name: str, recording: Recording, prices: Mapping[str, Mapping[StageSetting, float]], limit: float | None
) -> Table:
    rows, cheapest = [], float("inf")
    scores = _Scores(recording)
    considered = 0
    for settings in product(*prices.values()):
        cost = sum(prices[stage][s] for stage, s in zip(recording.stages, settings, strict=True))
        cheapest = min(cheapest, cost)
        if limit is not None and cost > limit * (1 + 1e-12):
            continue
        considered += 1
        if considered > MAX_ALLOCATIONS:
            raise ApportionError(f"{name}: more than {MAX_ALLOCATIONS:,} allocations; give fewer --samples")
        score = scores.of(settings)
        if score is not None:
            rows.append(Row(Allocation(tuple(zip(recording.stages, settings, strict=True))), score, cost))
    if not considered:
        raise ApportionError(f"{name}: no allocation costs {limit:g} or less; the cheapest costs {cheapest:g}")
    if not rows:
        raise PoolError(
            f"{name}: every allocation can meet an answer upstream for which later stages have no recorded draws"
        )
    return Table(name, recording.stages, tuple(rows))
