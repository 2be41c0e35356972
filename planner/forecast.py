"""What a study is likely to spend, and at most, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from env.allocation import Allocation, StageSetting
from env.calls import Call
from env.spec import StudySpec
from env.strategies import STRATEGIES, ParallelStrategy
from planner.archive import SearchLedger
from planner.loop.budgets import IDEAL_SHARE, TOKEN_MARGIN
from planner.outlay import LEDGER_UNITS, LIMITS, Outlay
from planner.proposers.initial import initial_trials
from planner.proposers.registry import may_ask_llm
from planner.space import MAX_ENUMERATED, SearchSpace

AGREEMENT = 0.75
"""Share of examples on which two ways to run the earlier stages deliver the same answer, so that the next stage's draws
are shared. Between what simulated and embedded pipelines show (docs/budgets.md)."""

MAX_FOLLOWED = 400
"""Trials whose draws are followed one by one; a longer search goes on as the last quarter of them did."""

TESTED = 3
"""Allocations the sealed split is usually read for: the plan, its runner-up and the largest model once."""

MOST_TESTED = 4
"""The best search trial too, where the plan is another."""


@dataclass(frozen=True)
class Rates:
    """Times that earlier trials with the same models took."""

    wall_seconds: float
    """Of a batch, for each FLOP newly done."""

    gpu_seconds: float | None = None
    source: str = ""
    """Where they were measured."""


@dataclass(frozen=True)
class LedgerForecast:
    """One ledger of the search or of the test."""

    ledger: Literal["search", "test"]
    unit: str
    expected: float | None
    """None where nothing tells."""

    worst: float | None
    """With nothing reused and every draw as long as it may be; at most the limit. None where nothing tells."""

    limit: float | None = None
    enough_for: int | None = None
    """Trials after which the limit is expected to end the search; None where it does not."""


@dataclass(frozen=True)
class StudyForecast:
    """What a study is expected to do."""

    allocations: int
    """That fit the plan budget, counted up to `MAX_ENUMERATED`."""

    initial_trials: int
    trials: int
    """That are expected to run."""

    most_trials: int
    ends_with: str
    """The limit expected to end the search, by its field of `SearchBudget`; ``space`` where all allocations run."""

    ledgers: tuple[LedgerForecast, ...]
    proposer_tokens: int | None
    """The most a proposer's LLM may use; None where the study's proposer asks none."""

    notes: tuple[str, ...] = ()

    def of(self, unit: str) -> LedgerForecast:
        """The search's ledger in a unit.

        Raises:
            KeyError: none counts it.
        """
        for line in self.ledgers:
            if line.ledger == "search" and line.unit == unit:
                return line
        raise KeyError(unit)


def forecast(spec: StudySpec, rates: Rates | None = None) -> StudyForecast:
    """Follow a likely search on paper.

    The trials are the initial ones and then allocations drawn from the space, for proposers that learn from its dearer
    half, where plans lie. Each stage of each trial needs ``n`` samples for an example; what of them is new follows from
    the trials before it. With the same settings up to the stage, ``max(0, n - held)``. Else, where j other ways led to
    the stage before, the upstream answer is unseen with probability ``u = (1 - AGREEMENT) / j``, and
    ``(1 - u) max(0, n - held by anyone) + u n`` draws are new; the first stage has no upstream. Tokens, FLOPs and money
    are the planned ones times the new share. A limit ends the search at the first trial whose reservation no longer
    fits what is left.

    Args:
        spec: checked.
        rates: measured times.

    Raises:
        ApportionError: a model's size or price cannot be read.
    """
    space, outlay = SearchSpace(spec), Outlay(spec)
    size = space.size()
    first = _initial(spec, space)
    most = min(spec.budget.search.trials, size if size < MAX_ENUMERATED else spec.budget.search.trials)
    followed = list(_likely(spec, space, first, min(most, MAX_FOLLOWED)))
    examples = spec.data.search
    course = _course(spec, outlay, followed, most, examples, rates)
    ends, trials = _end(spec, outlay, followed, course, examples, most, size)
    notes = _notes(spec, outlay, rates)
    worst = _worst(outlay, space, first, trials if ends in ("trials", "space") else most, examples)
    lines = [_line(outlay, ledger, course, worst, trials, ends) for ledger in LEDGER_UNITS]
    lines += _test_lines(outlay, space, followed[len(first) :] or followed, spec.data.test)
    asks = may_ask_llm(spec.proposer.kind)
    return StudyForecast(
        size,
        min(len(first), most),
        trials,
        spec.budget.search.trials,
        ends,
        tuple(line for line in lines if line is not None),
        spec.budget.proposer.tokens if asks else None,
        tuple(notes),
    )


Spending = Mapping[SearchLedger, float]


def _initial(spec: StudySpec, space: SearchSpace) -> list[Allocation]:
    if spec.proposer.kind == "random":
        return space.sample(random.Random(f"{spec.seed}/forecast"), spec.proposer.batch)
    return [p.allocation for p in initial_trials(space) if p.allocation is not None]


def _likely(spec: StudySpec, space: SearchSpace, first: Sequence[Allocation], count: int) -> Iterator[Allocation]:
    """Allocations in a likely order, all different, at most `count`."""
    yield from first[:count]
    generator = random.Random(f"{spec.seed}/forecast/later")
    wanted = count - len(first)
    if wanted <= 0:
        return
    seen = set(first)
    drawn = [a for a in space.sample(generator, 2 * wanted + len(first)) if a not in seen]
    if spec.proposer.kind != "random" and len(drawn) > wanted:
        dear = set(sorted(drawn, key=space.total, reverse=True)[: max(wanted, len(drawn) // 2)])
        drawn = [a for a in drawn if a in dear]
    yield from drawn[:wanted]


class _Held:
    """Which draws a search on paper holds."""

    def __init__(self) -> None:
        self._exact: dict[object, int] = {}
        self._common: dict[object, int] = {}
        self._prefixes: dict[object, int] = {}
        """Different settings of the earlier stages that led to a stage's draws."""

    def shares(self, prefix: tuple[object, ...], stage: str, setting: StageSetting) -> tuple[float, float]:
        """Take a stage's draws; returns (share of them that is new, share of the examples that ask for any)."""
        parallel = isinstance(STRATEGIES[setting.strategy], ParallelStrategy) or setting.samples == 1
        # Draws of the stage's own prompt serve every strategy that only looks at them; a chain or tree serves itself.
        kind = setting.model if parallel else setting
        knobs = tuple(knob for knob in setting.knobs if "." not in knob[0])
        exact, common = (prefix, stage, kind, knobs), (stage, kind, knobs)
        n = setting.samples
        held, anyone = self._exact.get(exact), self._common.get(common, 0)
        if held is not None:
            new, asking = float(max(0, n - held)), float(n > held)
        elif prefix and common in self._prefixes:
            # Like new species in a sample: the more ways led here, the rarer an answer that none of them gave.
            unseen = (1 - AGREEMENT) / self._prefixes[common]
            new = (1 - unseen) * max(0, n - anyone) + unseen * n
            asking = (1 - unseen) * (n > anyone) + unseen
        else:
            new, asking = float(n), 1.0
        if held is None:
            self._prefixes[common] = self._prefixes.get(common, 0) + 1
        self._exact[exact] = max(n, held or 0)
        self._common[common] = max(n, anyone)
        return new / n, asking


def _new_calls(outlay: Outlay, held: _Held, allocation: Allocation) -> tuple[float, list[Call]]:
    """(draws, calls) per example that are expected to be new."""
    draws, calls = 0.0, []
    prefix: tuple[object, ...] = ()
    for stage, setting in allocation.settings:
        new, asking = held.shares(prefix, stage, setting)
        for call in outlay.stage_calls(stage, setting):
            draws += new * call.samples * call.prompts
            share = asking if call.samples else new
            calls.append(replace(call, prompt=call.prompt * share, output=call.output * new))
        prefix = (*prefix, (stage, setting))
    return draws, calls


def _course(
    spec: StudySpec,
    outlay: Outlay,
    followed: Sequence[Allocation],
    most: int,
    examples: int,
    rates: Rates | None,
) -> list[Spending]:
    """What is expected to be spent after 0, 1, 2... trials."""
    held = _Held()
    total: dict[SearchLedger, float] = dict.fromkeys(_ledgers(outlay, rates), 0.0)
    course: list[Spending] = [dict(total)]
    for allocation in followed:
        draws, calls = _new_calls(outlay, held, allocation)
        total["search"] += draws * examples
        for ledger, cost in outlay.priced.items():
            total[ledger] += cost.of(calls) * examples
        _add_times(outlay, calls, examples, rates, total)
        course.append(dict(total))
    tail = max(1, len(followed) // 4)
    while followed and len(course) <= most:
        before = course[len(followed) - tail]
        last = course[-1]
        course.append({k: last[k] + (course[len(followed)][k] - before[k]) / tail for k in last})
    return course


def _ledgers(outlay: Outlay, rates: Rates | None) -> list[SearchLedger]:
    timed: list[SearchLedger] = []
    if outlay.ideal_gpu is not None or (rates is not None and rates.gpu_seconds is not None):
        timed.append("search_gpu_seconds")
    if rates is not None:
        timed.append("search_wall_seconds")
    return ["search", *outlay.priced, *timed]


def _add_times(
    outlay: Outlay, calls: Sequence[Call], examples: int, rates: Rates | None, total: dict[SearchLedger, float]
) -> None:
    work = outlay.flops.of(calls) * examples
    if rates is not None and rates.gpu_seconds is not None:
        total["search_gpu_seconds"] += rates.gpu_seconds * work
    elif outlay.ideal_gpu is not None:
        factor = outlay.calibration or 1 / IDEAL_SHARE
        total["search_gpu_seconds"] += outlay.ideal_gpu.of(calls) * examples * factor
    if rates is not None:
        total["search_wall_seconds"] += rates.wall_seconds * work


def _end(
    spec: StudySpec,
    outlay: Outlay,
    followed: Sequence[Allocation],
    course: Sequence[Spending],
    examples: int,
    most: int,
    size: int,
) -> tuple[str, int]:
    """(what ends the search, trials that ran)."""
    for done in range(min(most, len(course) - 1)):
        allocation = followed[done] if done < len(followed) else followed[-1]
        for ledger, field in LIMITS.items():
            limit = outlay.limit(ledger)
            if limit is None or ledger not in course[0]:
                continue
            if course[done][ledger] + _reservation(outlay, ledger, allocation, examples) > limit:
                return field, done
    return ("trials" if most == spec.budget.search.trials and most <= size else "space"), most


def _reservation(outlay: Outlay, ledger: SearchLedger, allocation: Allocation, examples: int) -> float:
    """What a trial sets aside; times are taken as they come."""
    if ledger == "search":
        return float(outlay.most_draws(allocation) * examples)
    cost = outlay.priced.get(ledger)
    if cost is None:
        return 0.0
    planned, worst = cost.of(outlay.planned(allocation)), cost.of(outlay.worst(allocation))
    return min(worst, TOKEN_MARGIN * planned) * examples


def _worst(
    outlay: Outlay, space: SearchSpace, first: Sequence[Allocation], trials: int, examples: int
) -> dict[SearchLedger, float]:
    """The most so many trials can take: the initial ones, then every stage at its dearest setting that fits."""
    own = list(first[:trials])
    later = max(0, trials - len(own))
    dearest = _dearest(outlay, space)
    worst: dict[SearchLedger, float] = {
        "search": (sum(outlay.most_draws(a) for a in own) + later * dearest["search"]) * examples
    }
    for ledger, cost in outlay.priced.items():
        worst[ledger] = (sum(cost.of(outlay.worst(a)) for a in own) + later * dearest[ledger]) * examples
    return worst


def _dearest(outlay: Outlay, space: SearchSpace) -> dict[SearchLedger, float]:
    """Per query, the sum over stages of the most any of its settings takes in each ledger."""
    found: dict[SearchLedger, float] = dict.fromkeys(("search", *outlay.priced), 0.0)
    for stage, settings in space.settings.items():
        single = [Allocation(((stage, setting),)) for setting in settings]
        found["search"] += max(outlay.most_draws(a) for a in single)
        for ledger, cost in outlay.priced.items():
            found[ledger] += max(cost.of(outlay.worst(a)) for a in single)
    return found


def _line(
    outlay: Outlay,
    ledger: SearchLedger,
    course: Sequence[Spending],
    worst: Mapping[SearchLedger, float],
    trials: int,
    ends: str,
) -> LedgerForecast | None:
    limit = outlay.limit(ledger)
    expected = course[min(trials, len(course) - 1)].get(ledger)
    if expected is None and limit is None:
        return None
    most = worst.get(ledger)
    if limit is not None:
        most = limit if most is None else min(most, limit)
        expected = None if expected is None else min(expected, limit)
    enough = trials if LIMITS.get(ledger) == ends else None
    return LedgerForecast("search", LEDGER_UNITS[ledger], expected, most, limit, enough)


def _test_lines(
    outlay: Outlay, space: SearchSpace, likely: Sequence[Allocation], examples: int
) -> list[LedgerForecast]:
    """The sealed test: a few allocations, with nothing that the search drew."""
    dearest = _dearest(outlay, space)
    mean = sum(_planned_draws(outlay, a) for a in likely) / len(likely)
    lines = [LedgerForecast("test", "draws", TESTED * mean * examples, MOST_TESTED * dearest["search"] * examples)]
    for ledger, cost in outlay.priced.items():
        mean = sum(cost.of(outlay.planned(a)) for a in likely) / len(likely)
        worst = MOST_TESTED * dearest[ledger] * examples
        lines.append(LedgerForecast("test", LEDGER_UNITS[ledger], TESTED * mean * examples, worst))
    return lines


def _planned_draws(outlay: Outlay, allocation: Allocation) -> int:
    return sum(call.samples * call.prompts for call in outlay.planned(allocation))


def _notes(spec: StudySpec, outlay: Outlay, rates: Rates | None) -> list[str]:
    notes = []
    if rates is not None:
        notes.append(f"Times are those of {rates.source}.")
    elif outlay.ideal_gpu is not None and outlay.calibration is None:
        notes.append(
            f"GPU-seconds are idealized ones at {IDEAL_SHARE:.0%} of the accelerator's peak; state "
            f"budget.plan.calibration where you have measured it."
        )
    for ledger, field in LIMITS.items():
        known = ledger in _ledgers(outlay, rates)
        if outlay.limit(ledger) is not None and not known:
            notes.append(
                f"Nothing tells yet how fast these models are, so how far {field} reach is not known: the first batch "
                f"measures it, and a limit that is reached within a batch stops it there."
            )
    if spec.budget.search.min_gain is not None:
        notes.append(
            f"The search ends earlier once nothing is expected to gain {spec.budget.search.min_gain:g} any more."
        )
    return notes
