"""Says what the evidence shows and no more: intervals, paired verdicts, the choice of the plan and what it hides."""

from planner.evidence.choice import Choice, Contender, choose, compare, contender, eligible, pareto
from planner.evidence.intervals import Interval, mean_interval, paired_difference
from planner.evidence.selection import Corrections, SelectionEstimate, corrected_estimates
from planner.evidence.verdicts import Distinction, VerdictWord, plain_words, tell_apart

__all__ = [
    "Choice",
    "Contender",
    "Corrections",
    "Distinction",
    "Interval",
    "SelectionEstimate",
    "VerdictWord",
    "choose",
    "compare",
    "contender",
    "corrected_estimates",
    "eligible",
    "mean_interval",
    "paired_difference",
    "pareto",
    "plain_words",
    "tell_apart",
]
