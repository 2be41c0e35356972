"""What an allocation not yet tried is expected to score, and how sure that is: a Gaussian process made for stages.

Stages multiply: an answer is right where every stage was, so a weak stage scales what the others can do. On the
logarithm of the score that product is a sum, which a few trials a stage are enough to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from math import prod

import numpy as np
from scipy.linalg import solve_triangular

from env.allocation import Allocation
from planner.proposers.observations import OFFSET, Observation, from_log, to_log
from planner.proposers.stage_tables import Array, Kernels, Places, Spreads, StageTables
from planner.space import SearchSpace

__all__ = ["Posterior", "Surrogate", "from_log", "to_log"]

VAGUE = 1.0
"""Prior variance of the overall level, in squared log-score."""

LEVEL = float(np.log(0.5 + OFFSET))

DISCORD = 0.5
"""How far a stage's own score may depart from what the stage is worth to the end, as a share of the latter's spread."""

JITTER = 1e-7

LEAST_WEIGHT = 0.03
"""Hypotheses less likely than this are left out of predictions."""

MOST_SAMPLED = 5
"""Hypotheses that joint draws come from, and that a screening looks at."""


CARRIES = (0.0, 1.0)
"""Whether a stage's own score holds what the stages before are worth: tried where there are such scores."""

TRUSTS = {0.0: 0.6, 0.6: 0.2, 0.97: 0.2}
"""How far earlier studies may be like this one, with what is believed of it beforehand: tried where there are any. The
past must earn its trust: being misled costs more than starting cold."""


def hypotheses(stage_scores: bool = False, past: bool = False) -> tuple[Spreads, ...]:
    """Pipelines whose models differ much or little, whose samples pay much or little, with and without interaction.

    Args:
        stage_scores: whether stages' own scores are seen.
        past: whether earlier studies are.
    """
    spreads = product(
        (0.6, 1.3), (0.6, 1.3), (0.03, 0.12), (0.005,) if past else (0.002, 0.01),
        CARRIES if stage_scores else (0.0,), tuple(TRUSTS) if past else (0.0,),
    )  # fmt: skip
    return tuple(
        Spreads(0.12 * models, 0.15 * models, 0.15 * samples, 0.12 * samples, joint, own, carry, trust)
        for models, samples, joint, own, carry, trust in spreads
    )


class Surrogate:
    """Gaussian process on log-scores (`to_log`) with a kernel made for stages.

    The log-score is a level, plus for each stage what its model is worth with one sample (insight 1), plus what more
    samples gain (insight 2), plus what the stages' settings do together (insight 3), plus what one allocation has for
    itself. Worth grows with the logarithm of the model's size by a slope that is the stage's own. The gain is a
    random function of ``x = 1 / sqrt(k)`` that is 0 at k = 1. How strong each part is, is averaged over `hypotheses`
    by their marginal likelihood (Rasmussen and Williams 2006, eq. 2.30 and 5.8). Where stages have scores of their
    own, these are further observations: a stage's part of the sum and something of its own, and perhaps the parts of
    the stages before.

    Args:
        data: what was seen; may be empty, then the prior speaks.
        space: gives the sizes of models, where no tables are given; without it all count as equally large.
        tables: of the study, kept between rounds.
        joint: whether settings of several stages may do something together (insight 3).
    """

    def __init__(
        self,
        data: Sequence[Observation],
        space: SearchSpace | None = None,
        tables: StageTables | None = None,
        joint: bool = True,
    ) -> None:
        self.tables = tables or StageTables(space)
        tried = hypotheses(any(o.stage is not None for o in data), any(o.study for o in data))
        if not joint:
            tried = tuple(dict.fromkeys(replace(h, joint=0.0) for h in tried))
        x = self.tables.places([o.allocation for o in data])
        self._evidence = _Evidence(data, x, self.tables) if data else None
        self.posteriors = tuple(Posterior(h, self._evidence) for h in tried)
        beforehand = np.log([TRUSTS[h.trust] for h in tried])
        logs = np.array([p.log_evidence for p in self.posteriors]) + beforehand
        weights = np.exp(logs - logs.max())
        self.weights: Array = weights / weights.sum()

    @property
    def trust(self) -> float:
        """How far earlier studies are believed, after what was seen: expected correlation with this one, 0 to 1."""
        return float(sum(w * p.spreads.trust for p, w in zip(self.posteriors, self.weights, strict=True)))

    def likely(self, most: int | None = None) -> list[tuple[Posterior, float]]:
        """Posteriors that carry weight, and their weights, which sum to 1; likeliest first."""
        order = [i for i in np.argsort(-self.weights) if self.weights[i] > LEAST_WEIGHT][:most]
        total = float(self.weights[order].sum())
        return [(self.posteriors[i], float(self.weights[i]) / total) for i in order]

    def predict(self, allocations: Sequence[Allocation]) -> tuple[Array, Array]:
        """Posterior mean and standard deviation of each allocation's log-score (`to_log`), shape (n,) each."""
        return self.predict_places(self.tables.places(allocations))

    def predict_places(self, x: Places) -> tuple[Array, Array]:
        """`predict` for allocations given by the places of their settings."""
        ends = _Ends(self.tables, x, self._evidence)
        return _mixed([(posterior.predict(ends), weight) for posterior, weight in self.likely()])

    def means(self, x: Places) -> Array:
        """Posterior means of log-scores alone, shape (n,): without the variances, which take most of the time."""
        ends = _Ends(self.tables, x, self._evidence)
        return np.asarray(sum(weight * posterior.mean(ends) for posterior, weight in self.likely()))

    def screen(self, x: Places) -> tuple[Array, Array]:
        """`predict_places` without what stages do together and what one allocation has for itself: fast for many."""
        settings, columns = zip(*(np.unique(x[:, i], return_inverse=True) for i in range(x.shape[1])), strict=True)
        at = np.stack(columns, axis=1)
        return _mixed([(self.additive(p, settings).predict(at), weight) for p, weight in self.likely(MOST_SAMPLED)])

    def sample(self, x: Places, count: int, generator: np.random.Generator, hypotheses: int = MOST_SAMPLED) -> Array:
        """Joint draws of the log-scores of allocations, shape (count, n).

        Args:
            x: the allocations, as places.
            count: of draws.
            generator: of randomness.
            hypotheses: how many to draw from, picked by systematic resampling of their weights; each costs a
                factorisation.
        """
        ends = _Ends(self.tables, x, self._evidence)
        marks = (generator.random() + np.arange(hypotheses)) / hypotheses
        picked = np.minimum(np.searchsorted(np.cumsum(self.weights), marks), len(self.weights) - 1)
        shares = np.diff(np.linspace(0, count, hypotheses + 1).astype(np.int64))
        wanted = np.bincount(picked, shares, len(self.weights)).astype(np.int64)
        drawn = [p.sample(ends, int(n), generator) for p, n in zip(self.posteriors, wanted, strict=True) if n]
        return np.concatenate(drawn)

    def additive(self, posterior: Posterior, settings: Sequence[Places]) -> Additive:
        """The part of a posterior that is a sum over stages, for settings given by stage as places."""
        return Additive(posterior, self.tables, self._evidence, settings)


def _mixed(parts: list[tuple[tuple[Array, Array], float]]) -> tuple[Array, Array]:
    """Mean and deviation of a mixture of normals, given by (mean, variance) and weight."""
    mean = np.asarray(sum(weight * m for (m, _), weight in parts))
    square = np.asarray(sum(weight * (v + m**2) for (m, v), weight in parts))
    return mean, np.sqrt(np.clip(square - mean**2, 1e-12, None))


class _Evidence:
    """Observations, and what every hypothesis makes of them alike."""

    def __init__(self, data: Sequence[Observation], x: Places, tables: StageTables) -> None:
        scores = np.array([o.score for o in data])
        self.x = x
        stage = np.array([-1 if o.stage is None else o.stage for o in data])
        self.end = stage < 0
        matched = np.array([o.matched or (True,) * x.shape[1] for o in data], dtype=bool).reshape(x.shape)
        self._matched = matched.astype(np.float64)
        self.whole = self.end & matched.all(axis=1)
        """End scores of known allocations."""
        study, level = np.array([o.study for o in data]), np.array([o.level for o in data])
        self.same_study = study[:, None] == study[None, :]
        self.level = (level[:, None] == level[None, :]) & np.outer(self.end, self.end)
        self.here = study == ""
        position = np.arange(x.shape[1])
        self.of_stage = (stage[:, None] == position[None, :]).astype(np.float64)
        self._before = (stage[:, None] > position[None, :]).astype(np.float64)
        self.kernels = [tables.kernels(i, x[:, i], x[:, i]) for i in range(x.shape[1])]
        self.together = _Together(self.kernels, x, x)
        self.means = [tables.mean(i, x[:, i]) for i in range(x.shape[1])]
        self.values = to_log(scores) - LEVEL
        # The noise of log(score + OFFSET) is that of the score over (score + OFFSET), to first order.
        scale = 1 / (np.maximum(scores, 0.0) + OFFSET)
        own, shared = (np.array([getattr(o, name) for o in data]) * scale for name in ("noise", "shared"))
        trial = np.array([o.trial for o in data])
        of_one = (trial[:, None] == trial[None, :]) & (trial[:, None] >= 0) & self.same_study
        self.noise = np.diag(own**2 + JITTER) + np.where(of_one, np.outer(shared, shared), 0.0)

        self._sums: dict[Spreads, Array] = {}
        self._wholes: dict[float, tuple[Array, Array]] = {}

    def shares(self, carry: float) -> Array:
        """How much of each stage's part an observation holds, shape (n, stages)."""
        return np.where(self.end[:, None], self._matched, self.of_stage + carry * self._before)

    def alike(self, trust: float) -> Array:
        """Correlation between studies of what settings are worth, shape (n, n)."""
        return np.where(self.same_study, 1.0, trust)

    def covariance(self, spreads: Spreads) -> Array:
        """Covariance of what was seen, noise included, shape (n, n).

        Hypotheses that differ in `joint` and `own` alone share the rest: it is summed up once for them.
        """
        shared = replace(spreads, joint=0.0, own=0.0)
        if shared not in self._sums:
            self._sums[shared] = self._sum_of_stages(shared)
        if spreads.trust not in self._wholes:
            both = np.outer(self.whole, self.whole) * self.alike(spreads.trust)
            self._wholes[spreads.trust] = both * self.together.joint, both * self.together.same
        joint, same = self._wholes[spreads.trust]
        return np.asarray(self._sums[shared] + spreads.joint**2 * joint + spreads.own**2 * same)

    def _sum_of_stages(self, spreads: Spreads) -> Array:
        total = self.noise + VAGUE * self.level
        alike, shares = self.alike(spreads.trust), self.shares(spreads.carry)
        for i, kernels in enumerate(self.kernels):
            worth, of_stage = kernels.worth(spreads), self.of_stage[:, i]
            total += alike * worth * np.outer(shares[:, i], shares[:, i])
            if of_stage.any():
                total += np.outer(of_stage, of_stage) * (VAGUE + DISCORD**2 * worth)
        return np.asarray(total)


class _Together:
    """Kernels over whole allocations: what stages do together, and what one allocation has for itself."""

    def __init__(self, kernels: Sequence[Kernels], left: Places, right: Places) -> None:
        self.joint: Array = np.asarray(prod(k.together for k in kernels))
        self.same = np.ones(self.joint.shape)
        for i in range(left.shape[1]):
            self.same *= left[:, None, i] == right[None, :, i]

    def covariance(self, spreads: Spreads) -> Array:
        return np.asarray(spreads.joint**2 * self.joint + spreads.own**2 * self.same)


class _Ends:
    """Allocations whose end scores are asked for, and how they relate to the observations under any hypothesis."""

    def __init__(self, tables: StageTables, x: Places, evidence: _Evidence | None) -> None:
        self.evidence = evidence
        stages = range(x.shape[1])
        self.mean = LEVEL + sum((tables.mean(i, x[:, i]) for i in stages), np.zeros(len(x)))
        self._tables, self._x = tables, x
        if evidence is not None:
            self._cross = [tables.kernels(i, x[:, i], evidence.x[:, i]) for i in stages]
            self._cross_together = _Together(self._cross, x, evidence.x)

    def cross(self, posterior: Posterior) -> Array:
        """Prior covariance with the observations, shape (n, observations)."""
        assert self.evidence is not None
        spreads, seen = posterior.spreads, self.evidence
        total = self._cross_together.covariance(spreads) * seen.whole[None, :]
        for i, kernels in enumerate(self._cross):
            total += kernels.worth(spreads) * posterior.shares[None, :, i]
        return np.asarray(total * posterior.trusts[None, :] + VAGUE * (seen.end & seen.here)[None, :])

    def variance(self, spreads: Spreads) -> Array:
        """Prior variance, shape (n,)."""
        total = np.full(len(self._x), VAGUE + spreads.joint**2 + spreads.own**2)
        for i in range(self._x.shape[1]):
            total += self._tables.variance(i, self._x[:, i], spreads)
        return total

    @cached_property
    def _own(self) -> list[Kernels]:
        return [self._tables.kernels(i, self._x[:, i], self._x[:, i]) for i in range(self._x.shape[1])]

    @cached_property
    def _own_together(self) -> _Together:
        return _Together(self._own, self._x, self._x)

    def covariance(self, spreads: Spreads) -> Array:
        """Prior covariance, shape (n, n)."""
        total = VAGUE + self._own_together.covariance(spreads)
        for kernels in self._own:
            total += kernels.worth(spreads)
        return np.asarray(total)


class Posterior:
    """What is believed under one hypothesis."""

    def __init__(self, spreads: Spreads, evidence: _Evidence | None) -> None:
        self.spreads = spreads
        self.log_evidence = 0.0
        if evidence is None:
            return
        self.shares = evidence.shares(spreads.carry)
        self.trusts = np.where(evidence.here, 1.0, spreads.trust)
        values = evidence.values - sum(self.shares[:, i] * mean for i, mean in enumerate(evidence.means))
        self._root = np.linalg.cholesky(evidence.covariance(spreads))
        white = self.reduce(values)
        self.log_evidence = float(-0.5 * white @ white - np.log(np.diag(self._root)).sum())
        self._white = white

    @cached_property
    def weights(self) -> Array:
        """Of the observations in a prediction's mean; of use for the few hypotheses that predictions come from."""
        return np.asarray(solve_triangular(self._root.T, self._white, lower=False, check_finite=False))

    def reduce(self, covariance: Array) -> Array:
        """``V`` of a covariance with the observations, (observations, ...): what they explain is ``V.T @ V``."""
        return np.asarray(solve_triangular(self._root, covariance, lower=True, check_finite=False))

    def predict(self, ends: _Ends) -> tuple[Array, Array]:
        """Posterior mean and variance of log-scores, shape (n,) each."""
        variance = ends.variance(self.spreads)
        if ends.evidence is None:
            return ends.mean, variance
        cross = ends.cross(self)
        explained = (self.reduce(cross.T) ** 2).sum(axis=0)
        return ends.mean + cross @ self.weights, np.clip(variance - explained, 1e-10, None)

    def mean(self, ends: _Ends) -> Array:
        """Posterior mean of log-scores, shape (n,)."""
        return ends.mean if ends.evidence is None else np.asarray(ends.mean + ends.cross(self) @ self.weights)

    def sample(self, ends: _Ends, count: int, generator: np.random.Generator) -> Array:
        """Joint draws of log-scores, shape (count, n)."""
        mean, covariance = ends.mean, ends.covariance(self.spreads)
        if ends.evidence is not None:
            cross = ends.cross(self)
            reduced = self.reduce(cross.T)
            mean, covariance = mean + cross @ self.weights, covariance - reduced.T @ reduced
        root = np.linalg.cholesky(covariance + 10 * JITTER * np.eye(len(mean)))
        return np.asarray(mean + generator.standard_normal((count, len(mean))) @ root.T)


class Additive:
    """A posterior's level and sum over stages: a normal distribution over what each setting is worth.

    Args:
        posterior: what is believed.
        settings: by stage, the settings looked at, as places.
    """

    def __init__(
        self, posterior: Posterior, tables: StageTables, evidence: _Evidence | None, settings: Sequence[Places]
    ) -> None:
        self._level, self._vague = LEVEL, VAGUE
        self._means: list[Array] = []
        self._variances: list[Array] = []
        self._kernels: list[Kernels] = []
        self._reduced: list[Array] = []
        self._spreads = posterior.spreads
        level: Array | None = None
        if evidence is not None:
            cross = VAGUE * (evidence.end & evidence.here).astype(np.float64)
            self._level += float(cross @ posterior.weights)
            level = posterior.reduce(cross)
            self._vague -= float(level @ level)
        for i, places in enumerate(settings):
            self._means.append(tables.mean(i, places))
            self._variances.append(tables.variance(i, places, posterior.spreads))
            self._kernels.append(tables.kernels(i, places, places))
            if evidence is not None and level is not None:
                kernels = tables.kernels(i, places, evidence.x[:, i])
                cross = kernels.worth(posterior.spreads) * (posterior.shares[:, i] * posterior.trusts)[None, :]
                self._means[-1] = self._means[-1] + cross @ posterior.weights
                reduced = posterior.reduce(cross.T)
                self._reduced.append(reduced)
                self._variances[-1] = self._variances[-1] - (reduced**2).sum(axis=0) - 2 * level @ reduced

    def predict(self, at: Places) -> tuple[Array, Array]:
        """Mean and variance of sums, of allocations given by their positions in `settings`, shape (n,) each."""
        mean, variance = np.full(len(at), self._level), np.full(len(at), self._vague)
        for stage, column in enumerate(at.T):
            mean += self._means[stage].take(column)
            variance += self._variances[stage].take(column)
        for i, left in enumerate(self._reduced):
            for j, right in enumerate(self._reduced[:i]):
                shared = 2 * left.T @ right
                variance -= shared.take(at[:, i] * shared.shape[1] + at[:, j])
        return mean, np.clip(variance, 1e-10, None)

    def sample(self, count: int, generator: np.random.Generator) -> list[Array]:
        """Joint draws of what each setting is worth, by stage, shape (count, settings) each.

        Drawn from the whole posterior covariance: one factorisation of as many rows as there are settings.
        """
        count_ = sum(len(m) for m in self._means)
        covariance = np.zeros((count_, count_))
        if self._reduced:
            reduced = np.concatenate(self._reduced, axis=1)
            covariance -= reduced.T @ reduced
        start = 0
        for block in (kernels.worth(self._spreads) for kernels in self._kernels):
            end = start + len(block)
            covariance[start:end, start:end] += block
            start = end
        covariance[np.diag_indices_from(covariance)] += 10 * JITTER
        root = np.linalg.cholesky(covariance)
        drawn = np.concatenate(self._means) + generator.standard_normal((count, start)) @ root.T
        return np.split(drawn, np.cumsum([len(m) for m in self._means])[:-1], axis=1)
