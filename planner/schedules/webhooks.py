"""Sends an alert to a webhook, once; who calls it decides whether to try again."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from env import egress
from env.egress import AsyncGuardedTransport, Egress
from env.errors import ApportionError
from planner.schedules.alerts import DELIVERY, SIGNATURE, TIMESTAMP, signature

TIMEOUT_S = 10.0
ALLOWED_HOSTS = "APPORTION_WEBHOOK_HOSTS"
"""Environment variable: hosts, by comma, that a webhook may name though their addresses are not public."""

AGAIN = frozenset({408, 425, 429})
"""Answers that may be others later, besides those of 500 and above."""

Verdict = Literal["delivered", "again", "refused"]


@dataclass(frozen=True)
class Attempt:
    """One attempt at a delivery."""

    verdict: Verdict
    status: int | None
    """Of HTTP; None where there was no answer."""

    error: str
    seconds: float

    def to_json(self, number: int, at: str) -> dict[str, Any]:
        """As the delivery log keeps it."""
        return {"number": number, "at": at, "status": self.status, "error": self.error, "seconds": self.seconds}


def check_url(url: str) -> None:
    """Refuse a webhook that this service may not call.

    Raises:
        ApportionError: no HTTP URL, one with a password, or a host that is not found, or whose address is not public
            and not allowed.
    """
    policy = webhook_egress()
    policy.checked_url(url)
    parts = urlsplit(url)
    if not policy.check_host(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)):
        raise ApportionError(f"{parts.hostname} cannot be found")


def webhook_egress() -> Egress:
    """What webhooks may reach: public addresses, and what the operator allowed, for all or for webhooks alone."""
    here, names = egress.current(), os.environ.get(ALLOWED_HOSTS, "").split(",")
    allowed = Egress.strict(name.strip() for name in names if name.strip())
    return replace(
        here,
        loopback=False,
        private=False,
        names=here.names | allowed.names,
        networks=(*here.networks, *allowed.networks),
    )


async def deliver(url: str, secret_env: str, run_id: str, body: str, environ: Mapping[str, str]) -> Attempt:
    """Send an alert once. Redirects are not followed, and nothing of the answer but its status is kept."""
    started = time.monotonic()
    secret = environ.get(secret_env, "")
    if not secret:
        words = f"the environment variable {secret_env} with the secret is not set where the worker runs"
        return Attempt("again", None, words, 0.0)
    content, now = body.encode(), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "apportion",
        DELIVERY: run_id,
        TIMESTAMP: str(now),
        SIGNATURE: signature(secret, now, content),
    }
    status: int | None = None
    error = ""
    verdict: Verdict = "again"
    try:
        check_url(url)
        async with (
            httpx.AsyncClient(
                transport=AsyncGuardedTransport(webhook_egress()), timeout=TIMEOUT_S, follow_redirects=False
            ) as client,
            client.stream("POST", url, content=content, headers=headers) as answer,
        ):
            status = answer.status_code
    except ApportionError as refusal:
        error = str(refusal)
    except httpx.HTTPError as trouble:
        error = f"{type(trouble).__name__}: {trouble}" if str(trouble) else type(trouble).__name__
    if status is not None:
        if 200 <= status < 300:
            verdict = "delivered"
        else:
            verdict = "again" if status in AGAIN or status >= 500 else "refused"
            error = f"the receiver answered {status}"
    return Attempt(verdict, status, error, round(time.monotonic() - started, 3))
