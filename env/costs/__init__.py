"""Says what an allocation costs: predicted from planned tokens, measured from used ones, always with its unit."""

from env.costs._base import CostDataError, CostModel, CostOptions, ModelProfile, StageTokens
from env.costs.agenttts import agenttts_units
from env.costs.architecture import active_parameters, kv_bytes_per_token, total_parameters
from env.costs.flops import flops
from env.costs.ladder import Ladder, ladder
from env.costs.limits import PlanLimits
from env.costs.plan_cost import PlanCost
from env.costs.seconds import Calibration, calibrate
from env.costs.units import UNITS, cost_model

__all__ = [
    "UNITS",
    "Calibration",
    "CostDataError",
    "CostModel",
    "CostOptions",
    "Ladder",
    "ModelProfile",
    "PlanCost",
    "PlanLimits",
    "StageTokens",
    "active_parameters",
    "agenttts_units",
    "calibrate",
    "cost_model",
    "flops",
    "kv_bytes_per_token",
    "ladder",
    "total_parameters",
]
