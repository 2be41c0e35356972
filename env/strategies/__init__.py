"""Spends a stage's samples: asks for draws round by round, turns them into one answer, and says what fewer give."""

from env.strategies._base import (
    Ask,
    Candidate,
    Judge,
    Knob,
    Outcomes,
    Procedure,
    Reply,
    Request,
    StagePlan,
    StageRun,
    Strategy,
)
from env.strategies._parallel import ParallelStrategy, single_outcomes
from env.strategies.asc import AdaptiveConsistency
from env.strategies.beam import Beam
from env.strategies.best_of_n import BestOfN
from env.strategies.by_difficulty import ByDifficulty
from env.strategies.cascade import Cascade
from env.strategies.dvts import Dvts
from env.strategies.esc import EarlyStopping
from env.strategies.fuse import Fuse
from env.strategies.likeliest import Likeliest
from env.strategies.qalign import QAlign
from env.strategies.rebase import Rebase
from env.strategies.revise import Revise
from env.strategies.top_ids import TopIds
from env.strategies.trend import Trend
from env.strategies.union import Union
from env.strategies.verify import Verify
from env.strategies.vote import Vote, plurality_probabilities
from env.strategies.weighted_vote import WeightedVote

_ALL: tuple[Strategy, ...] = (
    Vote(),
    WeightedVote(),
    BestOfN(),
    Likeliest(),
    Union(),
    TopIds(),
    Fuse(),
    Revise(),
    Verify(),
    Beam(),
    Dvts(),
    Rebase(),
    QAlign(),
    AdaptiveConsistency(),
    EarlyStopping(),
    Trend(),
    Cascade(),
    ByDifficulty(),
)

STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _ALL}
"""Strategies by the name specs use."""

__all__ = [
    "STRATEGIES",
    "Ask",
    "Candidate",
    "Judge",
    "Knob",
    "Outcomes",
    "ParallelStrategy",
    "Procedure",
    "Reply",
    "Request",
    "StagePlan",
    "StageRun",
    "Strategy",
    "plurality_probabilities",
    "single_outcomes",
]
