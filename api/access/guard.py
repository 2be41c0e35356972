"""Guards every request: loopback names only, same origin for changes, a bounded body, strict headers."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import MAX_BODY_BYTES
from api.problems import problem_of, respond

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        # Plotly sets style elements and attributes of its own.
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, max_body: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = refusal_of(scope["method"], Headers(scope=scope)) or self._too_large(Headers(scope=scope))
        if refusal is not None:
            await respond(problem_of(refusal))(scope, receive, with_headers)
            return
        await self._app(scope, self._counted(receive), with_headers)

    def _too_large(self, headers: Headers) -> HTTPException | None:
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._max_body:
            return _body_too_large(self._max_body)
        return None

    def _counted(self, receive: Receive) -> Receive:
        """The same stream, cut off where a body without a stated length grows too large."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._max_body:
                    raise _body_too_large(self._max_body)
            return message

        return counted


def refusal_of(method: str, headers: Headers) -> HTTPException | None:
    """Why a request may not pass; None where it may.

    The host must be a loopback name, so that no foreign name that resolves to this machine reaches the service, and a
    change must not come from another site's page.
    """
    host = headers.get("host", "")
    if not is_loopback(host_name(host)):
        return HTTPException(421, f"this service answers on loopback names only, not on {host[:100]!r}")
    if method in SAFE_METHODS:
        return None
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return HTTPException(403, "the request comes from a page of another origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return HTTPException(403, "the request comes from a page of another site")
    return None


def host_name(host: str) -> str:
    """The name of a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    """Whether a host name or address means this machine only."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _body_too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {most >> 20} MiB")
