"""GP: Optuna's Gaussian process sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.proposers.rivals.optuna_search import OptunaProposer

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class GpProposer(OptunaProposer):
    """Bayesian optimisation by a Gaussian process: Matern 5/2, a length scale for each parameter.

    It maximises the log expected improvement times the probability of being within budget (Gardner et al. 2014), for
    which a second process learns the budget constraint. Scores are taken as noisy. A batch is spread by a constant
    liar; Optuna's own way with open trials takes ten times as long. Defaults of Optuna otherwise.
    """

    kind = "gp"
    lies = True
    max_asks = 12

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
