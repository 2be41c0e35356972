"""Writes every change that is asked for into the audit log, with what came of it, and lets old entries go."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

from starlette.types import Scope

from api.access.callers import Caller
from api.access.scopes import SAFE_METHODS, rule_for
from planner.archive import Archive, ArchiveError

log = logging.getLogger(__name__)

_FORGET_EVERY_S = 3600.0


class Auditor:
    """Notes changes. For one event loop; the archive is written on threads."""

    def __init__(self, archive: Archive, retention: timedelta | None) -> None:
        """Nothing is noted yet.

        Args:
            archive: keeps the log.
            retention: age at which entries go; they stay where None.
        """
        self._archive = archive
        self._retention = retention
        self._forgot = float("-inf")

    async def note(self, scope: Scope, status: int) -> None:
        """Note a request that asked for a change and was answered with a status.

        What nobody in particular asked in vain is logged only, but for the login: else anyone could fill the archive.

        A log that cannot be written is no reason to withhold the answer: what happened has happened.
        """
        method, path = scope["method"], scope["path"]
        if method in SAFE_METHODS or not rule_for(method, path).changes:
            return
        caller: Caller = scope["state"]["caller"]
        if caller.kind == "nobody" and path != "/login":
            log.warning("refused with %s: %s %s from %s", status, method, path[:200], client_address(scope))
            return
        if status == 429:
            return
        try:
            await asyncio.to_thread(self._write, caller, client_address(scope), method, path, status)
        except ArchiveError as error:
            log.error(
                "the audit log could not be written: %s; %s by %s (%s): %s %s, %s",
                error, datetime.now(UTC).isoformat(), caller.name, caller.kind, method, path, status,
            )  # fmt: skip

    def _write(self, caller: Caller, source: str, method: str, path: str, status: int) -> None:
        self._archive.audit.note(caller.kind, caller.name, source, method, path, str(status))
        now = time.monotonic()
        if self._retention is not None and now - self._forgot > _FORGET_EVERY_S:
            self._forgot = now
            self._archive.audit.forget(datetime.now(UTC) - self._retention)


def client_address(scope: Scope) -> str:
    """Where a request came from, by way of a trusted proxy too."""
    client = scope.get("client")
    return str(client[0]) if client else "unknown"
