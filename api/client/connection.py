"""HTTP with retries where a second try can do no harm."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import httpx

from api.client.errors import Unreachable, error_of

TOKEN_VARIABLE = "APPORTION_TOKEN"
ATTEMPTS = 4
FIRST_WAIT_S = 0.2
_AGAIN = (429, 502, 503, 504)


class Connection:
    """Sends requests to one service."""

    def __init__(self, url: str, token: str | None, timeout_s: float) -> None:
        shown = token if token is not None else os.environ.get(TOKEN_VARIABLE)
        headers = {"Authorization": f"Bearer {shown}"} if shown else {}
        self.url = url.rstrip("/")
        self.http = httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=timeout_s)

    def send(self, method: str, path: str, repeatable: bool | None = None, **options: Any) -> httpx.Response:
        """The answer to a request.

        Args:
            method: of HTTP.
            path: below /api/v1.
            repeatable: whether sending it twice does no harm; by default where the method says so.
            options: of `httpx.Client.request`.

        Raises:
            ApiError: the service refused it.
            Unreachable: nothing answered.
        """
        again = method in ("GET", "PUT", "DELETE") if repeatable is None else repeatable
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                response = self.http.request(method, path, **options)
            except httpx.ConnectError as error:
                if last:
                    raise Unreachable(
                        f"nothing answers at {self.url} ({error}); start it with apportion serve"
                    ) from error
            except httpx.TransportError as error:
                if last or not again:
                    raise Unreachable(f"{self.url} did not answer: {error or type(error).__name__}") from error
            else:
                if response.is_success or response.status_code == 304:
                    return response
                if last or not again or response.status_code not in _AGAIN:
                    raise error_of(response)
                _wait(attempt, response.headers)
                continue
            _wait(attempt, {})
        raise AssertionError("the last attempt returns or raises")


def _wait(attempt: int, headers: Mapping[str, str]) -> None:
    told = headers.get("retry-after", "")
    time.sleep(min(30.0, float(told)) if told.isdecimal() else FIRST_WAIT_S * 2**attempt)
