"""Models and the servers they run on."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from api.schemas.base import Public


class ModelPublic(Public):
    """One model that a spec can name, or that the archive has draws of."""

    name: str
    kind: Literal["embedded", "fleet", "published", "seen"] = Field(
        description="`embedded`: ships with Apportion; `fleet`: of the operator's fleet file; `published`: its "
        "architecture is in the catalogue; `seen`: the sample bank holds its draws or scores."
    )
    revision: str = Field("", description="Of `seen` models: the weights behind the draws.")
    parameters: float | None = Field(None, description="In total, as its makers state.")
    active_parameters: float | None = Field(None, description="Where they state others than the total.")
    source: str = Field("", description="Who says so, or how a spec names it.")


class FleetServerPublic(Public):
    """One model server, as its owner last wrote it."""

    model: str
    phase: str
    alive: bool
    url: str
    devices: list[str]
    restarts: int
    load_seconds: float
    reason: str = Field(description="Why it is not ready; empty where it is.")


class FleetPublic(Public):
    """The operator's model servers, as `apportion fleet status` shows them."""

    configured: bool = Field(description="Whether APPORTION_FLEET names a fleet file.")
    problem: str = Field("", description="Why the fleet file cannot be read; empty where it can.")
    models: list[str] = Field(default_factory=list, description="Of the fleet file.")
    running: bool = Field(False, description="Whether a process owns the fleet and lives.")
    owner: str = Field("", description="`up`, `study` or `tune`; empty where nobody does.")
    updated: datetime | None = None
    servers: list[FleetServerPublic] = Field(default_factory=list)
    loads: int = 0
    load_seconds: float = 0.0
    wakes: int = 0
    wake_seconds: float = 0.0
    inference_seconds: float = 0.0
