"""Tables of who may ask the service and what was asked: tokens, sessions of browsers, the audit log."""

from datetime import datetime

from sqlmodel import Field

from planner.archive.columns import RowNumber, UtcDateTime
from planner.archive.tables.base import ArchiveTable


class TokenRow(ArchiveTable, table=True):
    """An access token; of the token itself only a hash is kept."""

    __tablename__ = "access_tokens"

    id: str = Field(primary_key=True)
    name: str = Field(unique=True)
    scope: str
    digest: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class SessionRow(ArchiveTable, table=True):
    """A browser that showed a token; it may what the token may, for as long as that lives."""

    __tablename__ = "access_sessions"

    id: str = Field(primary_key=True)
    token_id: str = Field(foreign_key="access_tokens.id", ondelete="CASCADE")
    digest: str
    created_at: datetime = Field(sa_type=UtcDateTime)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)


class AuditRow(ArchiveTable, table=True):
    """One change that was asked for, and what came of it."""

    __tablename__ = "audit"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True, sa_type=RowNumber)
    at: datetime = Field(sa_type=UtcDateTime, index=True)
    kind: str
    who: str
    source: str
    action: str
    subject: str
    result: str
