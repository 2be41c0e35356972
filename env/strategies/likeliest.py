"""Best of n by the model's own log-probability."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from env.errors import ApportionError
from env.strategies._base import Candidate, Knob, Outcomes, StagePlan, check_subset
from env.strategies._parallel import ParallelStrategy, ranked_outcomes, single_outcomes


class Likeliest(ParallelStrategy):
    """The readable candidate with the highest log-probability, per token unless `per_token` is 0."""

    name = "likeliest"
    meaning = "the sample that the model itself finds likeliest"
    paper = "Mean log-probability ranking: Chen et al. 2021, arXiv 2107.03374"
    reads_texts = False
    knobs = MappingProxyType(
        {"per_token": Knob(1, "1 divides the log-probability by the number of tokens, 0 does not", 0, 1)}
    )

    def choose(self, plan: StagePlan, candidates: Sequence[Candidate]) -> str | None:
        """See `ParallelStrategy.choose`."""
        readable = [c for c in candidates if c.answer is not None]
        per_token = bool(plan.whole(self, "per_token"))
        return max(readable, key=lambda c: _likelihood(c, per_token)).answer if readable else None

    def outcomes(self, plan: StagePlan, candidates: Sequence[Candidate], samples: int) -> Outcomes:
        """See `Strategy.outcomes`; `ranked_outcomes` has the closed form, unreadable candidates rank lowest."""
        check_subset(candidates, samples)
        if samples == 1:
            return single_outcomes(candidates)
        per_token = bool(plan.whole(self, "per_token"))

        def rank(candidate: Candidate) -> tuple[float, ...]:
            return (0.0, 0.0) if candidate.answer is None else (1.0, _likelihood(candidate, per_token))

        return ranked_outcomes(candidates, samples, rank)


def _likelihood(candidate: Candidate, per_token: bool) -> float:
    if candidate.logprob is None:
        raise ApportionError("likeliest needs log-probabilities, which this server does not give; use another strategy")
    return candidate.logprob / max(1, candidate.tokens) if per_token else candidate.logprob
