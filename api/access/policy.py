"""How the service is guarded, as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from api.access.hosts import is_loopback
from api.access.limits import Rate
from api.settings import Settings
from env.errors import ApportionError
from planner.archive import open_archive

NOBODYS_RATE = Rate(per_minute=120, burst=120)
"""Enough for the login page and whoever mistypes; far too little to guess or to flood."""


class NoToken(ApportionError):
    """The service can be reached from elsewhere and nobody holds a token."""


@dataclass(frozen=True)
class AccessPolicy:
    """What the guard goes by. The default suits a service that only this machine reaches."""

    tokens_needed: bool = False
    hosts: frozenset[str] = frozenset()
    """Names the service answers to, beside the loopback ones."""

    addresses: bool = False
    """Whether it answers to any IP address as its host."""

    session: timedelta = timedelta(hours=12)
    """How long a browser stays logged in."""

    rate: Rate | None = None
    """Of each token's requests; None: no limit."""

    nobodys_rate: Rate | None = None
    """Of the requests from each address that show no good token; None: no limit."""

    streams: int = 500
    """Event streams open at once, of all callers."""

    streams_each: int = 500
    """Of one caller."""

    audit_kept: timedelta | None = None
    """How long the audit log keeps a change; for ever where None."""

    @classmethod
    def of(cls, settings: Settings) -> AccessPolicy:
        """The policy of these settings: tokens are needed as soon as anyone else could ask."""
        local = is_loopback(settings.host)
        names = frozenset(name.lower() for name in settings.allowed_hosts)
        foreign = any(not is_loopback(name) for name in names)
        needed = settings.require_tokens or foreign or not local
        # Without tokens everyone is this machine's user, who needs no protection from himself.
        limited = needed and settings.requests_per_minute > 0
        rate = Rate(settings.requests_per_minute, settings.request_burst)
        return cls(
            tokens_needed=needed,
            rate=rate if limited else None,
            nobodys_rate=NOBODYS_RATE if limited else None,
            streams=settings.event_streams,
            streams_each=settings.event_streams_each if needed else settings.event_streams,
            audit_kept=timedelta(days=settings.audit_days) if settings.audit_days else None,
            hosts=names if local else names | {settings.host.lower()},
            addresses=not local,
            session=timedelta(hours=settings.session_hours),
        )


def require_token(settings: Settings, policy: AccessPolicy) -> None:
    """See that somebody can use the service.

    Raises:
        NoToken: tokens are needed and the archive holds none that lives.
        ArchiveError: the archive cannot be opened.
    """
    if not policy.tokens_needed:
        return
    with open_archive(settings.archive_url) as archive:
        if archive.tokens.living() == 0:
            raise NoToken(
                f"the service would answer others than this machine's user (host {settings.host!r}), which "
                f"needs access tokens, and none lives: make one with 'apportion token create NAME --scope admin'"
            )
