"""What a search is judged by: how soon it comes close to the optimum, and what it leaves lying there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from planner.bench.rehearsal import Rehearsal, Step

TOLERANCE = 0.01
"""Score below the optimum that counts as having found it."""

AT_TRIALS = (10, 20, 50)
RESAMPLES = 2000
SEED = 20_250_801


@dataclass(frozen=True)
class Reach:
    """How soon a set of searches came within the tolerance, in trials or in new draws.

    A search that never did counts as later than all that did: a quantile that falls on one is infinite.
    """

    median: float
    median_low: float
    median_high: float
    """95% interval of the median: percentile bootstrap over searches."""

    p90: float
    never: float
    """Share of the searches that never came within it."""

    searches: int


@dataclass(frozen=True)
class Summary:
    """One proposer on one group of problems."""

    proposer: str
    group: str
    trials: Reach
    draws: Reach
    simple_regret: Mapping[int, tuple[float, float]]
    """By number of trials: mean of optimum less the truth of the best seen so far, and its standard error."""

    regret_per_token: float | None
    """Cumulative regret over tokens: the simple regret averaged over the tokens spent; None where none are counted."""

    refused: float
    """Proposals refused a search."""

    expectation_error: float | None
    """Root mean square of expected less true score; None where the proposer expects nothing."""

    milliseconds: float
    """Wall time a trial, the problem's own included."""

    llm_tokens: float
    """A search."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; infinities become None."""
        raw = asdict(self)
        raw["simple_regret"] = {str(n): {"mean": m, "standard_error": e} for n, (m, e) in self.simple_regret.items()}
        return {key: _finite(value) for key, value in raw.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def trials_to_reach(search: Rehearsal, tolerance: float = TOLERANCE) -> float:
    """Trials until one whose true score lies within the tolerance of the optimum, that one counted; else infinite."""
    return next((float(i) for i, s in enumerate(search.steps, 1) if _close(search, s, tolerance)), math.inf)


def draws_to_reach(search: Rehearsal, tolerance: float = TOLERANCE) -> float:
    """New draws made until then, that trial's counted; else infinite."""
    spent = 0
    for step in search.steps:
        spent += step.new_draws
        if _close(search, step, tolerance):
            return float(spent)
    return math.inf


def _close(search: Rehearsal, step: Step, tolerance: float) -> bool:
    return step.truth >= search.optimum - tolerance - 1e-12


def simple_regret(search: Rehearsal, trials: int) -> float:
    """Optimum less the true score of the trial that showed the highest score among the first `trials`."""
    best = max(search.steps[:trials], key=lambda s: s.observed)
    return search.optimum - best.truth


def regret_over_tokens(search: Rehearsal) -> float | None:
    """Simple regret averaged over the tokens spent: each trial's tokens count with the regret after it."""
    spent = sum(s.tokens for s in search.steps)
    if not spent:
        return None
    return sum(s.tokens * simple_regret(search, i) for i, s in enumerate(search.steps, 1)) / spent


def reach(values: Sequence[float]) -> Reach:
    """Quantiles of when searches came close, infinite ones counted as later than all others.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no searches to summarise")
    found = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(SEED)
    medians = _median(found[generator.integers(len(found), size=(RESAMPLES, len(found)))])
    low, high = np.quantile(medians, (0.025, 0.975), method="inverted_cdf")
    p90 = float(np.quantile(found, 0.9, method="higher"))
    return Reach(float(_median(found)), float(low), float(high), p90, float(np.isinf(found).mean()), len(found))


def _median(values: np.ndarray) -> np.ndarray:
    """Median over the last axis that takes infinities: the mean of two middle values is infinite where one is."""
    ordered = np.sort(values, axis=-1)
    n = ordered.shape[-1]
    return np.asarray((ordered[..., (n - 1) // 2] + ordered[..., n // 2]) / 2)


def summarise(proposer: str, group: str, searches: Sequence[Rehearsal], tolerance: float = TOLERANCE) -> Summary:
    """All searches of one proposer on one group of problems.

    Raises:
        ValueError: there are none, or one has no trial.
    """
    if not searches or any(not s.steps for s in searches):
        raise ValueError(f"{proposer} on {group}: no searches, or one without a trial")
    regrets = {
        n: _mean([simple_regret(s, n) for s in searches]) for n in AT_TRIALS if all(len(s.steps) >= n for s in searches)
    }
    over_tokens = [r for s in searches if (r := regret_over_tokens(s)) is not None]
    errors = [(s.expected - s.truth) ** 2 for r in searches for s in r.steps if s.expected is not None]
    count = sum(len(s.steps) for s in searches)
    return Summary(
        proposer,
        group,
        reach([trials_to_reach(s, tolerance) for s in searches]),
        reach([draws_to_reach(s, tolerance) for s in searches]),
        regrets,
        sum(over_tokens) / len(over_tokens) if over_tokens else None,
        sum(s.refused for s in searches) / len(searches),
        math.sqrt(sum(errors) / len(errors)) if errors else None,
        1000 * sum(s.seconds for s in searches) / count,
        sum(s.llm_tokens for s in searches) / len(searches),
    )


def _mean(values: Sequence[float]) -> tuple[float, float]:
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


@dataclass(frozen=True)
class Comparison:
    """One proposer's medians as a share of a rival's, on the same problems and seeds."""

    proposer: str
    rival: str
    group: str
    measure: str
    """``trials`` or ``draws``."""

    ratio: float
    """Median of the one over median of the other."""

    low: float
    high: float
    """95% interval: percentile bootstrap over problems, both proposers' searches of a problem taken together; over the
    searches of each where there is but one problem."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; infinities become None."""
        return {key: _finite(value) for key, value in asdict(self).items()}


def compare_searches(
    mine: Sequence[Rehearsal],
    theirs: Sequence[Rehearsal],
    group: str,
    measure: str,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Ratio of medians with its interval; infinite where the rival's median is finite and one's own is not.

    Raises:
        ValueError: the searches are not on the same problems.
    """
    of: Callable[[Rehearsal, float], float] = trials_to_reach if measure == "trials" else draws_to_reach
    mine_by, theirs_by = _by_problem(mine, of, tolerance), _by_problem(theirs, of, tolerance)
    if mine_by.keys() != theirs_by.keys() or not mine_by:
        raise ValueError(f"{group}: both must have searched the same problems")
    left, right = ([np.array(by[n]) for n in sorted(mine_by)] for by in (mine_by, theirs_by))
    if len(left) == 1:
        left, right = (list(values[0][:, None]) for values in (left, right))
    ratio = _ratio(left, right)
    generator = np.random.default_rng(SEED)
    drawn = []
    for _ in range(RESAMPLES):
        a = generator.integers(len(left), size=len(left))
        b = a if len(mine_by) > 1 else generator.integers(len(right), size=len(right))
        drawn.append(_ratio([left[i] for i in a], [right[i] for i in b]))
    low, high = np.quantile(np.array(drawn), (0.025, 0.975), method="inverted_cdf")
    return Comparison(mine[0].proposer, theirs[0].proposer, group, measure, ratio, float(low), float(high))


def _by_problem(
    searches: Sequence[Rehearsal], of: Callable[[Rehearsal, float], float], tolerance: float
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for search in searches:
        found.setdefault(search.problem, []).append(of(search, tolerance))
    return found


def _ratio(mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Ratio of medians; 0 where only the rival's is infinite, 1 where both are."""
    a, b = float(_median(np.concatenate(mine))), float(_median(np.concatenate(theirs)))
    if math.isinf(b):
        return 1.0 if math.isinf(a) else 0.0
    return a / b
