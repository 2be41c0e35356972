"""Says what an allocation costs: predicted from planned tokens, measured from used ones, always with its unit."""

from env.costs._base import CostModel, StageTokens, cost_model
from env.costs.architecture import llama_parameters
from env.costs.flops import agenttts_units, flops
from env.costs.plan_cost import PlanCost

__all__ = ["CostModel", "PlanCost", "StageTokens", "agenttts_units", "cost_model", "flops", "llama_parameters"]
