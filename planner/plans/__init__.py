"""Writes plans down: the plan document, its explanation, reports and figures."""

from planner.plans.document import PlanDocument
from planner.plans.explanation import amount, spent

__all__ = ["PlanDocument", "amount", "spent"]
