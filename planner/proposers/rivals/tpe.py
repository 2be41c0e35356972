"""TPE: Optuna's tree-structured Parzen estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.proposers.rivals.optuna_search import OptunaProposer

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class TpeProposer(OptunaProposer):
    """Bayesian optimisation by density ratio (Bergstra et al. 2011), all parameters at once ("multivariate").

    Optuna ranks infeasible trials below all others by how far they are over budget (its constrained TPE); open trials
    count among the bad ones, so that a batch spreads. Defaults of Optuna otherwise.
    """

    kind = "tpe"

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=0)
