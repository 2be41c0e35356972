"""Says what the evidence shows and no more: intervals, paired differences, the choice of the plan."""

from planner.evidence.choice import Choice, Contender, choose, compare, contender, pareto
from planner.evidence.intervals import Interval, mean_interval, paired_difference

__all__ = [
    "Choice",
    "Contender",
    "Interval",
    "choose",
    "compare",
    "contender",
    "mean_interval",
    "paired_difference",
    "pareto",
]
