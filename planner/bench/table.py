"""Recorded tables as problems: one row an allocation, with its score and cost, perhaps each stage's own score."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, cast

import numpy as np

from env.allocation import Allocation, KnobValue, StageSetting
from env.errors import ApportionError
from env.spec import StudySpec
from env.spec.pipeline import ModelSpec, OpenAIModel, PipelineSpec
from env.spec.stage import PlannedTokens, PromptMessage, SamplesSpec, StageSpec, StrategyName
from env.spec.study import BudgetSpec, CostUnit, InlineData, PlanBudget
from env.strategies import STRATEGIES
from planner.bench.problem import EVERYTHING, Conditions, Evaluator, Outcome
from planner.history import TrialView
from planner.space import SearchSpace

DEFAULT_STRATEGY: StrategyName = "vote"
NO_DATA = InlineData(source="inline", rows=({"answer": ""},), search=1, test=1)


class TableError(ApportionError):
    """A table cannot be read; the message names the file, the row and the column."""


@dataclass(frozen=True)
class Row:
    """One recorded allocation."""

    allocation: Allocation
    score: float
    cost: float
    stage_scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """Recorded allocations of one pipeline."""

    name: str
    stages: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path) -> Table:
    """Read a table from CSV, gzipped where its name ends in ``.gz``.

    Columns: ``<stage>.model`` and ``<stage>.samples`` for every stage in pipeline order, optionally
    ``<stage>.strategy``, ``<stage>.score`` and any other ``<stage>.<knob>``; ``score`` and ``cost`` (per query, any
    unit). One row an allocation.

    Raises:
        TableError: the file cannot be read, a column is missing, a value has no meaning, or two rows are the same.
    """
    try:
        with _open(path) as file:
            reader = csv.DictReader(file)
            columns = [c.strip() for c in reader.fieldnames or ()]
            reader.fieldnames = columns
            stages = _stages(path, columns)
            rows = [_row(path, number, raw, stages) for number, raw in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise TableError(f"{path}: cannot be read as CSV: {error}") from error
    if not rows:
        raise TableError(f"{path}: has no rows")
    seen: dict[Allocation, int] = {}
    for number, row in enumerate(rows, 2):
        first = seen.setdefault(row.allocation, number)
        if first != number:
            raise TableError(f"{path}: rows {first} and {number} are the same allocation: {row.allocation}")
    name = path.name.removesuffix(".gz").removesuffix(".csv")
    return Table(name, stages, tuple(rows))


def _open(path: Path) -> IO[str]:
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")


def _stages(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    stages = tuple(dict.fromkeys(c.rsplit(".", 1)[0] for c in columns if c.endswith(".model")))
    if not stages:
        raise TableError(f"{path}: no column <stage>.model; columns are {', '.join(columns) or 'none'}")
    missing = [c for c in (*(f"{s}.samples" for s in stages), "score", "cost") if c not in columns]
    if missing:
        raise TableError(f"{path}: no column {', '.join(missing)}; columns are {', '.join(columns)}")
    return stages


def _row(path: Path, number: int, raw: Mapping[str | None, str | None], stages: Sequence[str]) -> Row:
    if None in raw or None in raw.values():
        raise TableError(f"{path}: row {number} has another number of fields than the header")
    cells = {str(c): str(v).strip() for c, v in raw.items()}
    settings: dict[str, StageSetting] = {}
    stage_scores: dict[str, float] = {}
    for stage in stages:
        samples = _number(path, number, f"{stage}.samples", cells[f"{stage}.samples"])
        if samples != int(samples) or samples < 1:
            raise TableError(f"{path}: row {number}, {stage}.samples: {samples:g} is no whole number above 0")
        model = cells[f"{stage}.model"]
        if not model:
            raise TableError(f"{path}: row {number}, {stage}.model: empty")
        own = {c.removeprefix(f"{stage}."): v for c, v in cells.items() if c.startswith(f"{stage}.") and v}
        if "score" in own:
            stage_scores[stage] = _number(path, number, f"{stage}.score", own["score"])
        knobs = tuple(
            sorted((c, _value(v)) for c, v in own.items() if c not in ("model", "samples", "score", "strategy"))
        )
        strategy = own.get("strategy", DEFAULT_STRATEGY)
        if strategy not in STRATEGIES:
            # A word of the table's own tells settings apart like any knob.
            knobs = tuple(sorted((*knobs, ("strategy", strategy))))
            strategy = DEFAULT_STRATEGY
        settings[stage] = StageSetting(model, strategy, int(samples), knobs)
    score, cost = (_number(path, number, c, cells[c]) for c in ("score", "cost"))
    if cost < 0:
        raise TableError(f"{path}: row {number}, cost: {cost:g} is below 0")
    return Row(Allocation.of(settings), score, cost, stage_scores)


def _number(path: Path, number: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TableError(f"{path}: row {number}, {column}: {text!r} is no number")
    return value


def _value(text: str) -> KnobValue:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class TableSpace(SearchSpace):
    """The recorded allocations that the budget buys, as a search space.

    Costs are those of the rows. What one stage's setting costs is fitted as a sum over stages (least squares, at least
    0), which is exact where the recorded costs are such sums.
    """

    def __init__(self, table: Table, limit: float, unit: CostUnit = "flops") -> None:
        super().__init__(_spec(table, limit, unit))
        self._costs = {row.allocation: row.cost for row in table.rows}
        self._feasible = tuple(r.allocation for r in table.rows if r.cost <= limit * (1 + 1e-12))
        self._table_prices = _fitted_prices(table)
        self.settings = {
            stage: tuple(sorted({a[stage] for a in self._feasible}, key=lambda s: (self._table_prices[stage][s], s)))
            for stage in table.stages
        }

    def price(self, stage: str, setting: StageSetting) -> float:
        """See `SearchSpace.price`; fitted."""
        return self._table_prices[stage][setting]

    def total(self, allocation: Allocation) -> float:
        """See `SearchSpace.total`; as recorded, infinite for what was not."""
        return self._costs.get(allocation, math.inf)

    def allocations(self, settings: Mapping[str, Sequence[StageSetting]] | None = None) -> Iterator[Allocation]:
        """See `SearchSpace.allocations`; cheapest first."""
        for allocation in sorted(self._feasible, key=lambda a: (self._costs[a], a)):
            if settings is None or all(setting in settings[name] for name, setting in allocation.settings):
                yield allocation

    def faults(self, allocation: Allocation) -> list[str]:
        """See `SearchSpace.faults`."""
        if allocation not in self._costs:
            return ["the table has no such allocation"]
        if self._costs[allocation] > self.limit * (1 + 1e-12):
            return [f"over budget: {self._costs[allocation]:.6g}, the plan may cost {self.limit:.6g}"]
        return []

    def normal(self, allocation: Allocation) -> Allocation:
        """See `SearchSpace.normal`; a table names its allocations itself."""
        return allocation

    def sizes(self, stage: str) -> Mapping[str, float]:
        """See `SearchSpace.sizes`; what one more sample of a model costs."""
        return _slopes(self._table_prices[stage])

    def sampled(self, generator: random.Random) -> Iterator[Allocation]:
        """See `SearchSpace.sampled`; every row once, each as likely as another."""
        yield from generator.sample(self._feasible, len(self._feasible))


def _spec(table: Table, limit: float, unit: CostUnit) -> StudySpec:
    """The table's pipeline. Not validated: names of models and stages are the table's, not ours."""
    prices = _fitted_prices(table)
    models: dict[str, ModelSpec] = {}
    stages = []
    for stage in table.stages:
        sizes = _slopes(prices[stage])
        for model, size in sizes.items():
            models.setdefault(model, _recorded_model(model, size))
        used = list(prices[stage])
        counts = sorted({s.samples for s in used})
        knobs: dict[str, tuple[KnobValue, ...]] = {}
        for name in dict.fromkeys(name for s in used for name, _ in s.knobs):
            knobs[name] = tuple(dict.fromkeys(v for s in used if (v := s.knob(name)) is not None))
        stages.append(
            StageSpec.model_construct(
                name=stage,
                prompt=(PromptMessage(role="user", template="{{ question }}"),),
                models=tuple(sizes),
                strategies=tuple(dict.fromkeys(cast(StrategyName, s.strategy) for s in used)),
                samples=SamplesSpec.model_construct(min=counts[0], max=counts[-1], choices=tuple(counts)),
                knobs=knobs,
                tokens=PlannedTokens(prompt=1, output=1),
            )
        )
    pipeline = PipelineSpec.model_construct(name=table.name, models=models, stages=tuple(stages), metric="exact_match")
    return StudySpec.model_construct(
        name=table.name, pipeline=pipeline, data=NO_DATA, budget=BudgetSpec(plan=PlanBudget(limit=limit, unit=unit))
    )


def _recorded_model(model: str, size: float) -> OpenAIModel:
    return OpenAIModel(backend="openai", base_url="http://127.0.0.1:9/v1", model=model, parameters=size)


def _slopes(prices: Mapping[StageSetting, float]) -> dict[str, float]:
    """What one more sample of each model costs; what its only number of samples does where there is one."""
    slopes: dict[str, float] = {}
    for model in dict.fromkeys(s.model for s in prices):
        mine = sorted((s.samples, price) for s, price in prices.items() if s.model == model)
        (low, first), (high, last) = mine[0], mine[-1]
        slopes[model] = max((last - first) / (high - low) if high > low else first / low, 1e-12)
    return slopes


class TableProblem:
    """A search over a recorded table: a trial shows the row's score, and its stages' scores where they are recorded."""

    description = "Recorded allocations of a pipeline."

    def __init__(self, table: Table, limit: float, unit: CostUnit = "flops") -> None:
        """Of the rows that cost at most `limit`, in a unit that is only shown.

        Raises:
            TableError: no row does.
        """
        if not any(row.cost <= limit * (1 + 1e-12) for row in table.rows):
            cheapest = min(row.cost for row in table.rows)
            raise TableError(f"{table.name}: no row costs {limit:g} or less; the cheapest costs {cheapest:g}")
        self.name = table.name
        self.space = TableSpace(table, limit, unit)
        self._rows = {row.allocation: row for row in table.rows}

    @cached_property
    def optimum(self) -> float:
        """See `Problem.optimum`."""
        return max(self.truth(a) for a in self.space.allocations())

    def truth(self, allocation: Allocation) -> float:
        """See `Problem.truth`; as recorded."""
        return self._rows[allocation].score

    def evaluator(self, seed: int, conditions: Conditions = EVERYTHING) -> Evaluator:
        """See `Problem.evaluator`; every seed sees the same rows."""
        return TableTrials(self._rows)


class TableTrials:
    """Looks trials up."""

    def __init__(self, rows: Mapping[Allocation, Row]) -> None:
        self._rows = rows

    def run(self, allocation: Allocation, trial_no: int, round_: int) -> Outcome:
        """See `Evaluator.run`. Draws are counted as if nothing were reused: a table does not say what was."""
        row = self._rows[allocation]
        draws = sum(s.samples for _, s in allocation.settings)
        view = TrialView(
            trial_no, round_, allocation, row.score, 0.0, row.cost, row.cost, draws, {}, dict(row.stage_scores)
        )
        return Outcome(view, 0)


def _fitted_prices(table: Table) -> dict[str, dict[StageSetting, float]]:
    places = {
        key: i for i, key in enumerate(dict.fromkeys((n, s) for row in table.rows for n, s in row.allocation.settings))
    }
    design = np.zeros((len(table.rows), len(places)))
    for i, row in enumerate(table.rows):
        for key in row.allocation.settings:
            design[i, places[key]] = 1.0
    costs = np.array([row.cost for row in table.rows])
    fitted = np.linalg.lstsq(design, costs, rcond=None)[0]
    prices: dict[str, dict[StageSetting, float]] = {stage: {} for stage in table.stages}
    for (stage, setting), place in places.items():
        prices[stage][setting] = float(fitted[place])
    # The split of a constant between stages is arbitrary: each stage's cheapest setting costs the same share of it.
    floors = {stage: min(of.values()) for stage, of in prices.items()}
    for stage, of in prices.items():
        step = min((p - floors[stage] for p in of.values() if p > floors[stage] + 1e-12), default=1.0)
        for setting in of:
            of[setting] = max(of[setting] - floors[stage], 0.0) + step
    return prices
