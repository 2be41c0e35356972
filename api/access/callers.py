"""Who asks: a token, a browser's session, or whoever is on this machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from planner.archive import AccessScope, Archive, ArchiveError, TokenRecord

log = logging.getLogger(__name__)

SESSION_COOKIE = "apportion_session"
TOKEN_START = "apt_"

FRESH_S = 2.0
"""How long a token that was found stays known without asking the archive: a revocation elsewhere takes as long."""

_MOST_KNOWN = 1000
_USED_EVERY_S = 60.0
"""How often a token's last use is written, at most."""

CallerKind = Literal["token", "session", "loopback", "nobody"]


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and what they may."""

    kind: CallerKind
    name: str
    """The token's name; for loopback and nobody the same word as the kind."""

    scope: AccessScope | Literal["nothing"]
    token_id: str | None = None
    session: str | None = None
    """The session's secret text, to close it by; never shown."""

    def __repr__(self) -> str:
        return f"Caller({self.kind!r}, {self.name!r}, {self.scope!r})"


LOOPBACK = Caller("loopback", "loopback", "admin")
NOBODY = Caller("nobody", "nobody", "nothing")


class WrongToken(Exception):
    """A token or session was shown that is unknown, revoked or expired."""


class Callers:
    """Finds out who sent a request. For one event loop; the archive is asked on threads."""

    def __init__(self, archive: Archive, tokens_needed: bool) -> None:
        """Nothing is known yet.

        Args:
            archive: keeps the tokens.
            tokens_needed: whether a request that shows none is nobody's; else it is this machine's user's.
        """
        self._archive = archive
        self._unnamed = NOBODY if tokens_needed else LOOPBACK
        self._tokens_needed = tokens_needed
        self._known: OrderedDict[str, tuple[TokenRecord, float]] = OrderedDict()
        self._written: dict[str, float] = {}

    async def of(self, headers: Headers) -> Caller:
        """Who sent a request with these headers.

        Raises:
            WrongToken: it shows a token that is not, or no longer, good.
            ArchiveError: the archive cannot be read.
        """
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        bearer = bearer.strip()
        if scheme.lower() == "bearer" and (self._tokens_needed or bearer.startswith(TOKEN_START)):
            record = await self._found(bearer)
            if record is None:
                raise WrongToken
            await self._note_use(record.id)
            return Caller("token", record.name, record.scope, record.id)
        session = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE, "")
        if session and self._tokens_needed:
            record = await self._found(session)
            if record is not None:
                await self._note_use(record.id)
                return Caller("session", record.name, record.scope, record.id, session)
        return self._unnamed

    def forget(self, text: str) -> None:
        """Ask the archive again about a token or session the next time."""
        self._known.pop(text, None)

    async def _found(self, text: str) -> TokenRecord | None:
        """The token of a token's or a session's text."""
        known = self._known.get(text)
        if known is not None and time.monotonic() - known[1] < FRESH_S and known[0].lives(datetime.now(UTC)):
            return known[0]
        tokens = self._archive.tokens
        ask = tokens.shown if text.startswith(TOKEN_START) else tokens.of_session
        record = await asyncio.to_thread(ask, text)
        self.forget(text)
        if record is not None:
            self._known[text] = (record, time.monotonic())
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return record

    async def _note_use(self, token_id: str) -> None:
        """Write that a token was used; that it cannot be written is no reason to refuse."""
        now = time.monotonic()
        if now - self._written.get(token_id, -_USED_EVERY_S) < _USED_EVERY_S:
            return
        self._written[token_id] = now
        try:
            await asyncio.to_thread(self._archive.tokens.used, token_id)
        except ArchiveError as error:
            log.warning("the last use of a token could not be written: %s", error)
