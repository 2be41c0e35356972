"""Gives plans names, finds the one a client means, and opens it so that it can answer."""

from planner.serving.comparison import PlanDiff, plan_diff
from planner.serving.opened import OpenedPlan, open_plan
from planner.serving.reference import PlanReference, find_plan, point_within

__all__ = ["OpenedPlan", "PlanDiff", "PlanReference", "find_plan", "open_plan", "plan_diff", "point_within"]
