"""Starts, watches and stops the model servers a batch needs."""

from env.fleet.errors import DoesNotFitError, FleetError, ServerError
from env.fleet.fleet import Fleet, Lease, plan_memory
from env.fleet.load import FLEET_VARIABLE, FleetFile, configured_fleet, load_fleet
from env.fleet.residents import FleetTimes
from env.fleet.spec import FleetModelSpec, FleetSpec

__all__ = [
    "FLEET_VARIABLE",
    "DoesNotFitError",
    "Fleet",
    "FleetError",
    "FleetFile",
    "FleetModelSpec",
    "FleetSpec",
    "FleetTimes",
    "Lease",
    "ServerError",
    "configured_fleet",
    "load_fleet",
    "plan_memory",
]
