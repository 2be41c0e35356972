"""The audit log at the border."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from api.schemas.base import Public


class AuditEntry(Public):
    """One change that was asked for, and what came of it."""

    id: int
    at: datetime
    kind: str = Field(description="How the caller was known: token, session, loopback, command or nobody.")
    who: str = Field(description="The token's name; of a command, the user's.")
    source: str = Field(description="The address it came from; of a command, the host's name.")
    action: str = Field(description="The request's method, or the command.")
    subject: str = Field(description="The request's path, or what the command named.")
    result: str = Field(description="The answer's HTTP status; of a command, done or failed.")


class AuditPage(Public):
    """Entries, newest first."""

    entries: list[AuditEntry]
    next_before: int | None = Field(description="Ask with this as `before` for the page that follows.")
