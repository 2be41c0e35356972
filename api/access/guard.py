"""Guards every request: known hosts only, same origin for changes, a bounded body, a caller who may, strict headers."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.callers import Caller, Callers, WrongToken
from api.access.headers import HEADERS, STRICT_TRANSPORT
from api.access.hosts import host_refusal, is_loopback, origin_refusal
from api.access.policy import AccessPolicy
from api.access.scopes import SAFE_METHODS, rule_for, scope_refusal, suffices
from api.bodies import MAX_BODY_BYTES
from api.problems import OtherShape, problem_of, respond, wants_page
from planner.archive import Archive, ArchiveError

__all__ = ["Guard", "is_loopback"]

log = logging.getLogger(__name__)

LOGIN_PATH = "/login"
UPLOAD_PATH = "/api/v1/datasets"
"""Where larger bodies are taken, as they go to disk piece by piece."""

FRAMING_BYTES = 64 * 1024
"""What a form adds around an uploaded file, at most."""

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Guard:
    """ASGI middleware around the whole application; what it lets through finds its caller in ``request.state``."""

    def __init__(
        self,
        app: ASGIApp,
        archive: Archive,
        policy: AccessPolicy | None = None,
        max_body: int = MAX_BODY_BYTES,
        max_upload: int = MAX_BODY_BYTES,
        other: OtherShape | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            archive: keeps the tokens.
            policy: who may ask; whoever is on this machine where not given.
            max_body: most bytes of a request's body.
            max_upload: the same of a data set that is uploaded.
            other: answers refusals in another protocol's shape where a path speaks one.
        """
        self._app = app
        self._policy = policy or AccessPolicy()
        self._callers = Callers(archive, self._policy.tokens_needed)
        self._max_body = max_body
        self._max_upload = max_upload + FRAMING_BYTES
        self._other = other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through or answer it with a problem."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here, and so nobody may open one
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT)
            await send(message)

        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        await self._app(scope, _counted(receive, self._limit(scope)), with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass; one that may gets its caller."""
        try:
            caller = await self._checked(scope)
        except HTTPException as error:
            if error.status_code == 401 and scope["method"] in SAFE_METHODS and wants_page(Request(scope)):
                return RedirectResponse(login_address(scope), 303, {"Cache-Control": "no-store"})
            return self._shaped(scope, error) or respond(problem_of(error), dict(error.headers or {}))
        except ArchiveError as error:
            log.error("%s %s: %s", scope["method"], scope["path"], error)
            return self._shaped(scope, error) or respond(problem_of(error))
        state: dict[str, Any] = scope.setdefault("state", {})
        state.update(caller=caller, callers=self._callers, access=self._policy)
        return None

    def _shaped(self, scope: Scope, error: Exception) -> Response | None:
        return None if self._other is None else self._other(Request(scope), error, problem_of(error))

    async def _checked(self, scope: Scope) -> Caller:
        """Who sent a request.

        Raises:
            HTTPException: why it may not pass.
            ArchiveError: the archive cannot be asked about its token.
        """
        method, headers = scope["method"], Headers(scope=scope)
        policy = self._policy
        if refusal := host_refusal(headers, policy.hosts, policy.addresses) or self._proxied(headers):
            raise refusal
        if method not in SAFE_METHODS and (refusal := origin_refusal(headers, by_session=False)):
            raise refusal
        if refusal := _too_large(headers, self._limit(scope)):
            raise refusal
        rule = rule_for(method, scope["path"])
        try:
            caller = await self._callers.of(headers)
        except WrongToken:
            raise _who("the token is unknown, revoked or expired", 'error="invalid_token"') from None
        if not suffices(caller.scope, rule.need):
            if caller.kind == "nobody":
                raise _who("show an access token: Authorization: Bearer apt_...; 'apportion token create' makes one")
            detail = f'error="insufficient_scope", scope="{rule.need}"'
            raise HTTPException(403, scope_refusal(caller, rule.need), {"WWW-Authenticate": f"Bearer {detail}"})
        if method not in SAFE_METHODS and (refusal := origin_refusal(headers, by_session=caller.kind == "session")):
            raise refusal
        return caller

    def _proxied(self, headers: Headers) -> HTTPException | None:
        """Without tokens, a proxy on this machine would open the service to all the world."""
        if self._policy.tokens_needed or not any(name in headers for name in _FORWARDED):
            return None
        return HTTPException(
            403, "the request came through a proxy and the service asks for no tokens: set APPORTION_REQUIRE_TOKENS"
        )

    def _limit(self, scope: Scope) -> int:
        """Bytes that the body of a request may have."""
        upload = scope["method"] == "POST" and scope["path"] == UPLOAD_PATH
        return self._max_upload if upload else self._max_body


def login_address(scope: Scope) -> str:
    """The login page, which leads on to where a visitor wanted to go."""
    query = scope.get("query_string", b"").decode("latin-1")
    wanted = scope["path"] + (f"?{query}" if query else "")
    return LOGIN_PATH if wanted == "/" else f"{LOGIN_PATH}?next={quote(wanted, safe='/')}"


def _who(detail: str, error: str = "") -> HTTPException:
    challenge = 'Bearer realm="apportion"' + (f", {error}" if error else "")
    return HTTPException(401, detail, {"WWW-Authenticate": challenge})


def _too_large(headers: Headers, most: int) -> HTTPException | None:
    length = headers.get("content-length", "0")
    return _body_too_large(most) if length.isdecimal() and int(length) > most else None


def _counted(receive: Receive, most: int) -> Receive:
    """The same stream, cut off where a body without a stated length grows too large."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            if taken > most:
                raise _body_too_large(most)
        return message

    return counted


def _body_too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than {most >> 20} MiB")
