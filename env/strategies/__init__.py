"""Spends a stage's samples: turns parallel draws into one answer and says what fewer draws would have given."""

from env.strategies._base import Candidate, Outcomes, Strategy
from env.strategies.best_of_n import BestOfN
from env.strategies.union import Union
from env.strategies.vote import Vote, plurality_probabilities

_ALL: tuple[Strategy, ...] = (Vote(), Union(), BestOfN())

STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _ALL}
"""Strategies by the name specs use."""

__all__ = ["STRATEGIES", "BestOfN", "Candidate", "Outcomes", "Strategy", "Union", "Vote", "plurality_probabilities"]
