"""Simulated studies: allocations with known true scores on examples of latent difficulty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, expit, logit, ndtr

from env.allocation import Allocation, StageSetting
from planner.evidence import Contender

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Family:
    """Studies of one kind.

    A true score of mean mu over examples is the mean of Beta(mu phi, (1 - mu) phi) success probabilities, so that
    scores are beta-binomial and every true mean is known exactly. The probabilities of different allocations on one
    example hang together through a Gaussian copula: by the example's difficulty, which all share, and by a group's own
    view of it, as allocations with the same model in a stage share their draws.
    """

    name: str
    graded: bool
    """Scores are means over `draws` of them, as expected scores are; else one draw decides between 0 and 1."""

    examples: int
    """In the search split, and as many in the test split."""

    level: float
    """True score of the middle allocation."""

    trials: int = 24
    spread: float = 0.3
    """Standard deviation of true scores between allocations, in logits: 0 where all are alike."""

    concentration: float = 1.5
    """phi: small where an example is either hopeless or safe."""

    difficulty: float = 0.6
    """Correlation of an example's probabilities that all allocations share."""

    kinship: float = 0.15
    """Further correlation within a group of allocations."""

    draws: int = 8


def families() -> tuple[Family, ...]:
    """All kinds: 0/1 and graded scores, 50 and 200 examples, near 0.5 and near 0.95, with and without differences."""
    found: list[Family] = []
    for graded in (False, True):
        for examples in (50, 200):
            for level in (0.5, 0.93):
                kind = "graded" if graded else "0/1"
                base = Family(f"{kind}, n={examples}, level {level}", graded, examples, level)
                found.append(base)
                found.append(replace(base, name=f"{base.name}, all alike", spread=0.0))
    return tuple(found)


@dataclass(frozen=True)
class Study:
    """One simulated study."""

    truths: Array
    """True mean score of each trial."""

    search: tuple[Contender, ...]
    """The trials as the search saw them, in order."""

    test: tuple[Contender, ...]
    """The same allocations on the sealed examples."""


def studies(family: Family, count: int, seed: int) -> Iterator[Study]:
    """Independent studies of a family, the same for the same arguments."""
    for number in range(count):
        yield one_study(family, np.random.default_rng([seed, number]))


def one_study(family: Family, generator: np.random.Generator) -> Study:
    """Draw true scores, examples, and what every trial scored on them."""
    trials, n = family.trials, family.examples
    truths = expit(logit(family.level) + family.spread * generator.standard_normal(trials))
    scores = _scores(family, truths, generator)
    costs = np.exp(generator.standard_normal(trials))
    ids = [f"e{i}" for i in range(2 * n)]
    search, test = (
        tuple(
            _contender(t, float(costs[t]), dict(zip(ids[part], scores[t, part].tolist(), strict=True)))
            for t in range(trials)
        )
        for part in (slice(0, n), slice(n, 2 * n))
    )
    return Study(truths, search, test)


def _scores(family: Family, truths: Array, generator: np.random.Generator) -> Array:
    trials, examples = family.trials, 2 * family.examples
    groups = max(2, trials // 4)
    group = generator.integers(0, groups, trials)
    own = 1 - family.difficulty - family.kinship
    latent = (
        np.sqrt(family.difficulty) * generator.standard_normal(examples)
        + np.sqrt(family.kinship) * generator.standard_normal((groups, examples))[group]
        + np.sqrt(own) * generator.standard_normal((trials, examples))
    )
    phi = family.concentration
    right = betaincinv(truths[:, None] * phi, (1 - truths[:, None]) * phi, ndtr(latent))
    draws = family.draws if family.graded else 1
    return np.asarray(generator.binomial(draws, right) / draws)


def _contender(number: int, cost: float, scores: dict[str, float]) -> Contender:
    allocation = Allocation.of({"stage": StageSetting(f"m{number}", "vote", 1)})
    return Contender(number, allocation, sum(scores.values()) / len(scores), cost, scores, 1.0)
