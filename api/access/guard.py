"""Guards every request: known hosts only, same origin for changes, a bounded body, a caller who may, strict headers."""

from __future__ import annotations

import logging
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access.audit import Auditor, client_address
from api.access.callers import NOBODY, Caller, Callers, WrongToken
from api.access.headers import HEADERS, STRICT_TRANSPORT
from api.access.hosts import host_refusal, origin_refusal
from api.access.limits import OpenStreams, RateLimiter, retry_after
from api.access.policy import AccessPolicy
from api.access.scopes import SAFE_METHODS, Rule, is_stream, rule_for, scope_refusal, suffices
from api.bodies import MAX_BODY_BYTES
from api.problems import OtherShape, problem_of, respond, wants_page
from planner.archive import Archive, ArchiveError

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
        self._auditor = Auditor(archive, self._policy.audit_kept)
        self._rates = RateLimiter(self._policy.rate)
        self._nobodys = RateLimiter(self._policy.nobodys_rate)
        self._streams = OpenStreams(self._policy.streams, self._policy.streams_each)
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

        started = False

        async def finished(message: Message) -> None:
            """Send on, the answer's head with strict headers and entered into the audit log before."""
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", STRICT_TRANSPORT)
                await self._auditor.note(scope, message["status"])
            await send(message)

        scope.setdefault("state", {}).update(caller=NOBODY, callers=self._callers, access=self._policy)
        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, finished)
            return
        try:
            await self._passed(scope, receive, finished)
        except Exception as error:
            # Answered here and not further out, where neither headers nor the audit log would know of it.
            if started:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = await scope["app"].exception_handlers[Exception](Request(scope), error)
            await answer(scope, receive, finished)

    async def _passed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that may pass; of event streams only so many at a time."""
        if not is_stream(scope["method"], scope["path"]):
            await self._app(scope, _counted(receive, self._limit(scope)), send)
            return
        key = _key(scope, scope["state"]["caller"])
        if not self._streams.enter(key):
            detail = "too many event streams are open: close some, or ask for the study now and then instead"
            refusal = HTTPException(429, detail, {"Retry-After": "10"})
            await respond(problem_of(refusal), dict(refusal.headers or {}))(scope, receive, send)
            return
        try:
            await self._app(scope, _counted(receive, self._limit(scope)), send)
        finally:
            self._streams.leave(key)

    async def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass; one that may gets its caller."""
        try:
            await self._check(scope)
        except HTTPException as error:
            if error.status_code == 401 and scope["method"] in SAFE_METHODS and wants_page(Request(scope)):
                return RedirectResponse(login_address(scope), 303, {"Cache-Control": "no-store"})
            return self._shaped(scope, error) or respond(problem_of(error), dict(error.headers or {}))
        except ArchiveError as error:
            log.error("%s %s: %s", scope["method"], scope["path"], error)
            return self._shaped(scope, error) or respond(problem_of(error))
        return None

    def _shaped(self, scope: Scope, error: Exception) -> Response | None:
        return None if self._other is None else self._other(Request(scope), error, problem_of(error))

    async def _check(self, scope: Scope) -> None:
        """Find out who sent a request, note it in the request's state, and see that they may.

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
            self._spend(scope, NOBODY, rule)
            raise _who("the token is unknown, revoked or expired", 'error="invalid_token"') from None
        scope["state"]["caller"] = caller
        self._spend(scope, caller, rule)
        if not suffices(caller.scope, rule.need):
            if caller.kind == "nobody":
                raise _who("show an access token: Authorization: Bearer apt_...; 'apportion token create' makes one")
            detail = f'error="insufficient_scope", scope="{rule.need}"'
            raise HTTPException(403, scope_refusal(caller, rule.need), {"WWW-Authenticate": f"Bearer {detail}"})
        if method not in SAFE_METHODS and (refusal := origin_refusal(headers, by_session=caller.kind == "session")):
            raise refusal

    def _spend(self, scope: Scope, caller: Caller, rule: Rule) -> None:
        """Take one request from what a caller may send.

        Raises:
            HTTPException: there is none left for now.
        """
        if not rule.limited:
            return
        limiter = self._nobodys if caller.kind == "nobody" else self._rates
        wait = limiter.wait_for(_key(scope, caller))
        if wait > 0:
            headers = {"Retry-After": retry_after(wait)}
            raise HTTPException(429, f"too many requests: wait {headers['Retry-After']} s", headers)

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


def _key(scope: Scope, caller: Caller) -> str:
    """Whose requests are counted together: a token's, with the sessions opened by it, or an address's."""
    return client_address(scope) if caller.token_id is None else f"token {caller.token_id}"


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
