"""Sends an alert to a webhook, once; who calls it decides whether to try again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from env.egress import EgressError, GuardedTransport
from planner.schedules.alerts import DELIVERY, SIGNATURE, TIMESTAMP, signature

TIMEOUT_S = 10.0
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
        status = await asyncio.to_thread(_post, url, content, headers)
    except EgressError as refusal:
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


def _post(url: str, content: bytes, headers: Mapping[str, str]) -> int:
    """The status of the answer; its body is not read.

    Raises:
        EgressError: the operator does not allow that address.
        httpx.HTTPError: there was no answer.
    """
    transport = GuardedTransport()
    with (
        httpx.Client(transport=transport, timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
        client.stream("POST", url, content=content, headers=dict(headers)) as answer,
    ):
        return answer.status_code
