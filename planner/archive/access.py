"""Access tokens and sessions of browsers: made, found again by what a caller shows, revoked."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from sqlmodel import col, delete, func, or_, select, update

from planner.archive.errors import ArchiveError, NotFound
from planner.archive.sessions import Sessions, insert_missing, utc_now
from planner.archive.tables import SessionRow, TokenRow

AccessScope = Literal["read", "submit", "admin"]
"""What a token may do; each scope includes those before it."""

SCOPES: tuple[AccessScope, ...] = ("read", "submit", "admin")
TOKEN_PATTERN = re.compile(r"apt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
"""What a token looks like, which also lets it be found in a text where it has no place."""

_SESSION_PATTERN = re.compile(r"([0-9a-f]{24})\.([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"(?![0-9a-f]{12}$)[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
"""Never like an id, so that one word names one token."""

_SECRET_BYTES = 32
_NOBODY = hashlib.sha256(secrets.token_bytes(_SECRET_BYTES)).hexdigest()
"""What is compared where there is no such token, so that both answers take as long."""


@dataclass(frozen=True)
class TokenRecord:
    """A token, without what it is checked by. Times are in UTC."""

    id: str
    name: str
    scope: AccessScope
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def lives(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True)
class NewToken:
    """A token just made: the only time its text is known."""

    record: TokenRecord
    text: str

    def __repr__(self) -> str:
        return f"NewToken({self.record!r})"


class Tokens:
    """The access tokens of an archive; safe to share between threads.

    A token is ``apt_<id>_<secret>`` with 256 random bits in the secret: far too many to guess, so that a plain SHA-256
    is a safe thing to keep of it.
    """

    def __init__(self, sessions: Sessions) -> None:
        """Made by `Archive`."""
        self._sessions = sessions

    def create(self, name: str, scope: AccessScope, lifetime: timedelta | None = None) -> NewToken:
        """Make a token.

        Args:
            name: for lists and the audit log; unique, also among revoked ones.
            scope: what it may do.
            lifetime: until it expires; never where None.

        Raises:
            ArchiveError: the name is taken or not usable, the lifetime is not positive, or the database failed.
        """
        if not _NAME.fullmatch(name):
            raise ArchiveError("a token's name has 1 to 64 letters, digits, dots, dashes, underscores or @")
        if scope not in SCOPES:
            raise ArchiveError(f"a token's scope is {', '.join(SCOPES)}, not {scope!r}")
        if lifetime is not None and lifetime <= timedelta(0):
            raise ArchiveError("a token's lifetime must be positive")
        now = utc_now()
        try:
            expires = None if lifetime is None else now + lifetime
        except OverflowError:
            raise ArchiveError("a token's lifetime is too long; leave it out for one that never expires") from None
        identity = secrets.token_hex(6)
        text = f"apt_{identity}_{secrets.token_urlsafe(_SECRET_BYTES)}"
        row = TokenRow(id=identity, name=name, scope=scope, digest=_digest(text), created_at=now, expires_at=expires)
        with self._sessions.write() as session:
            if not insert_missing(session.connection(), TokenRow, [row.model_dump()]):
                raise ArchiveError(f"there is a token {name!r} already; choose another name")
        return NewToken(_token(row), text)

    def list(self) -> list[TokenRecord]:
        """All tokens, revoked ones included, oldest first."""
        with self._sessions.read() as session:
            rows = session.exec(select(TokenRow).order_by(col(TokenRow.created_at), col(TokenRow.id)))
            return [_token(row) for row in rows]

    def living(self) -> int:
        """How many tokens are neither revoked nor expired."""
        query = select(func.count()).where(
            col(TokenRow.revoked_at).is_(None),
            or_(col(TokenRow.expires_at).is_(None), col(TokenRow.expires_at) > utc_now()),
        )
        with self._sessions.read() as session:
            return int(session.exec(query).one())

    def revoke(self, name_or_id: str) -> TokenRecord:
        """End a token and the sessions opened with it; revoking again changes nothing.

        Raises:
            NotFound: there is no token of that name or id.
        """
        with self._sessions.write() as session:
            query = select(TokenRow).where(or_(col(TokenRow.name) == name_or_id, col(TokenRow.id) == name_or_id))
            row = session.exec(query.with_for_update()).first()
            if row is None:
                raise NotFound(f"there is no token {name_or_id!r}; list the tokens to see what there is")
            row.revoked_at = row.revoked_at or utc_now()
            session.add(row)
            session.connection().execute(delete(SessionRow).where(col(SessionRow.token_id) == row.id))
            session.flush()
            return _token(row)

    def shown(self, text: str) -> TokenRecord | None:
        """The living token of this text, compared in constant time; None for anything else."""
        found = TOKEN_PATTERN.fullmatch(text)
        with self._sessions.read() as session:
            row = None if found is None else session.get(TokenRow, found.group(1))
            matches = hmac.compare_digest(_NOBODY if row is None else row.digest, _digest(text))
            return _living(row) if matches and row is not None else None

    def used(self, token_id: str) -> None:
        """Store that a token was used now."""
        with self._sessions.write() as session:
            statement = update(TokenRow).where(col(TokenRow.id) == token_id).values(last_used_at=utc_now())
            session.connection().execute(statement)

    # Sessions of browsers -----------------------------------------------------------------------------------------

    def open_session(self, token: TokenRecord, lifetime: timedelta) -> str:
        """Let a browser that showed a token go on without it; returns the session's secret text for its cookie."""
        now = utc_now()
        identity = secrets.token_hex(12)
        text = f"{identity}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        row = SessionRow(
            id=identity, token_id=token.id, digest=_digest(text), created_at=now, expires_at=now + lifetime
        )
        with self._sessions.write() as session:
            session.connection().execute(delete(SessionRow).where(col(SessionRow.expires_at) <= now))
            session.add(row)
        return text

    def of_session(self, text: str) -> TokenRecord | None:
        """The living token behind a living session; None for anything else."""
        found = _SESSION_PATTERN.fullmatch(text)
        with self._sessions.read() as session:
            row = None if found is None else session.get(SessionRow, found.group(1))
            matches = hmac.compare_digest(_NOBODY if row is None else row.digest, _digest(text))
            if row is None or not matches or row.expires_at <= utc_now():
                return None
            return _living(session.get(TokenRow, row.token_id))

    def close_session(self, text: str) -> None:
        """End a session; one that is over already stays so."""
        found = _SESSION_PATTERN.fullmatch(text)
        if found is None:
            return
        with self._sessions.write() as session:
            row = session.get(SessionRow, found.group(1))
            if row is not None and hmac.compare_digest(row.digest, _digest(text)):
                session.delete(row)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _living(row: TokenRow | None) -> TokenRecord | None:
    if row is None:
        return None
    record = _token(row)
    return record if record.lives(utc_now()) else None


def _token(row: TokenRow) -> TokenRecord:
    fields = row.model_dump(exclude={"digest"})
    return TokenRecord(**{**fields, "scope": cast(AccessScope, row.scope)})
