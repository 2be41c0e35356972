"""The state of the service."""

from __future__ import annotations

from typing import Literal

from api.schemas.base import Public


class HealthPublic(Public):
    """Whether the process answers."""

    status: Literal["ok"] = "ok"
