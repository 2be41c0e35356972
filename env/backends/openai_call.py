"""Calls to one model of one server: time limit, the server's gate, retries, and doing without what it refuses."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from env.backends._base import Draw, DrawRequest, Message, Sampling, ScoreRequest
from env.backends.openai_dialect import CONTINUE_FIELDS, Body, Dialect, Habits, draw_body, draw_path, score_body
from env.backends.openai_reply import Asked, MalformedReplyError, estimated_tokens, read_draws, read_prompt_tokens
from env.backends.openai_score import read_score
from env.backends.openai_stream import StreamedDraw
from env.errors import BackendError
from env.spans import span
from env.traffic import NotAdmittedError, ServerGate, Verdict

if TYPE_CHECKING:
    import httpx2
    from openai import APIStatusError, AsyncOpenAI

_RETRIED = frozenset({408, 409, 429})
_LONGEST_WAIT_S = 30.0
_LATE = 0.8
"""Share of the time limit from which an answer counts as a sign of overload."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """How long and how often a call is tried."""

    timeout_s: float
    """For one attempt, from sending to the last byte."""

    max_retries: int
    backoff_s: float
    """Wait before the first retry; doubled each time, half of it at random."""

    @property
    def patience_s(self) -> float:
        """Seconds a call waits for a server that is not asked because it keeps failing: as long as its retries take."""
        return sum(self.pause_s(retry) for retry in range(self.max_retries))

    def pause_s(self, retry: int) -> float:
        """Longest wait before a retry, counted from 0."""
        return min(_LONGEST_WAIT_S, self.backoff_s * 2.0**retry)


@dataclass(frozen=True)
class Place:
    """Where a model is, and whose calls these are."""

    model: str
    base_url: str
    """Up to and with ``/v1``, no slash at the end."""

    tenant: str

    @property
    def root(self) -> str:
        """The server's URL without ``/v1``, below which vLLM serves verifiers."""
        return self.base_url.removesuffix("/v1")


@dataclass(frozen=True)
class Sent:
    """One request as it is sent."""

    url: str
    """Whole: the client would parse three for one that is relative, a tenth of its time."""

    body: Body


class Calls:
    """Calls from one event loop."""

    def __init__(
        self,
        client: AsyncOpenAI,
        gate: ServerGate,
        place: Place,
        limits: Limits,
        concurrency: int,
        dialect: Dialect,
        habits: Habits,
    ) -> None:
        self.client = client
        self._gate = gate
        self._place = place
        self._limits = limits
        self._slots = asyncio.Semaphore(concurrency)
        self._dialect = dialect
        self._habits = habits
        self._draw_url = place.base_url + draw_path(dialect)
        self._finding_out = asyncio.Lock()
        self._continues = dialect.continues

    async def draws(self, messages: Sequence[Message], sampling: Sampling, seed: int, first: int, n: int) -> list[Draw]:
        """Ask for ``n`` choices; they are draws ``first``, ``first + 1``, ... and may be fewer than asked.

        Raises:
            BackendError: it failed for good; the message says how, and after how many attempts.
            NotServedError: the server refuses ``n``.
        """

        def read(body: bytes) -> list[Draw]:
            cut = bool(sampling.stop) and "stop" in self._habits.without
            estimate = self._dialect.missing_usage == "estimate"
            return read_draws(body, Asked(messages, sampling, first, n, estimate, cut))

        def build() -> Sent:
            if n > 1 and self._habits.single:
                raise NotServedError("the server gives one choice a request")
            body = draw_body(self._dialect, self._habits, self._place.model, messages, sampling, seed, n)
            return Sent(self._draw_url, body)

        return await self._ask(build, read)

    async def stream(
        self,
        client: httpx2.AsyncClient,
        messages: Sequence[Message],
        sampling: Sampling,
        seed: int,
        index: int,
        on_text: Callable[[str], None],
    ) -> Draw:
        """Draw one sample and tell of its text while it comes; one attempt.

        Args:
            client: reads replies while they come, and carries the token.
            messages: the prompt.
            sampling: how to draw.
            seed: of the request.
            index: of the draw.
            on_text: told each piece.

        Raises:
            BackendError: it failed.
        """
        import httpx2

        if sampling.stop and "stop" in self._habits.without:
            raise BackendError("the server cannot be told where to stop, so that its text is cut only when it is whole")
        body = draw_body(self._dialect, self._habits, self._place.model, messages, sampling, seed, 1)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        drawn = StreamedDraw(on_text)
        async with self._slots:
            ticket = await self._gate.enter(self._place.tenant, False)
            verdict, reason = Verdict.ABANDONED, ""
            try:
                async with (
                    asyncio.timeout(self._limits.timeout_s),
                    client.stream("POST", self._draw_url, json=body) as reply,
                ):
                    if reply.status_code != 200:
                        healthy = reply.status_code < 500 and reply.status_code != 429
                        verdict = Verdict.SERVED if healthy else Verdict.BUSY
                        raise BackendError(f"HTTP {reply.status_code} to a request for a stream")
                    await drawn.read(reply.aiter_lines())
                verdict = Verdict.SERVED
                return drawn.draw(index, "\n".join(m.content for m in messages), sampling)
            except TimeoutError:
                verdict, reason = Verdict.UNAVAILABLE, f"no answer within {self._limits.timeout_s:g} s"
                raise BackendError(reason) from None
            except httpx2.HTTPError as error:
                verdict, reason = Verdict.BROKEN, f"no connection ({error})"
                raise BackendError(reason) from None
            except MalformedReplyError as error:
                raise BackendError(str(error)) from None
            finally:
                self._gate.leave(ticket, verdict, reason)

    async def score(self, request: ScoreRequest) -> Draw:
        """Ask a verifier.

        Raises:
            BackendError: it failed for good, or its numbers cannot be read as a score.
        """
        tokens = sum(estimated_tokens(message.content) for message in request.messages)

        def build() -> Sent:
            body = score_body(self._dialect, self._habits, self._place.model, request.messages, request.partial)
            below = self._place.base_url if self._habits.below_v1 else self._place.root
            return Sent(f"{below}{self._dialect.score_path}", body)

        return await self._ask(build, lambda body: read_score(body, self._dialect, tokens))

    async def require_continuation(self, request: DrawRequest) -> None:
        """Make sure that the server continues a partial answer.

        Servers that do not know how to be told may ignore it and start a new turn. Two requests for one token each
        tell: the prompt that ends inside the last message is shorter than the one with that message closed and a new
        turn begun.

        Raises:
            BackendError: it does not, or cannot be asked now.
        """
        if self._dialect.api == "completions":
            return
        async with self._finding_out:
            if self._continues is None:
                self._continues = await self._shorter_when_continued(request)
        if not self._continues:
            raise BackendError(
                "the server does not continue a partial answer: told to (continue_final_message), it reads the same "
                "prompt as for a new turn; serve the model with vLLM or the torch engine, or set continues: true on "
                "the model if it does so by itself"
            )

    async def _shorter_when_continued(self, request: DrawRequest) -> bool:
        lengths = []
        for fields in (True, False):

            def build(fields: bool = fields) -> Sent:
                sampling = Sampling(temperature=request.sampling.temperature, max_tokens=1)
                whole = draw_body(self._dialect, self._habits, self._place.model, request.messages, sampling, 0, 1)
                body = whole if fields else {k: v for k, v in whole.items() if k not in CONTINUE_FIELDS}
                return Sent(self._draw_url, body)

            try:
                lengths.append(await self._ask(build, read_prompt_tokens))
            except RefusedError:
                if fields:
                    raise
                return True  # only the closed conversation is refused, so the two are not the same to the server
        open_, closed = lengths
        if open_ is None or closed is None:
            raise BackendError(
                "whether the server continues a partial answer cannot be told, since it does not count tokens (usage); "
                "set continues: true or false on the model"
            )
        return open_ < closed

    async def _ask(self, build: Callable[[], Sent], read: Callable[[bytes], Result]) -> Result:
        """One answer, after as many attempts as it takes and is allowed."""
        from openai import APIConnectionError, APIError, APIStatusError

        attempts, patience = 0, self._limits.patience_s
        while True:
            wait: float | None = None
            sent = Sent("", {})

            def built() -> Sent:
                nonlocal sent
                sent = build()
                return sent

            try:
                return await self._attempt(built, read, retry=attempts > 0)
            except APIStatusError as error:
                reason = f"HTTP {error.status_code}: {error.message}"
                if self._learnt(error, sent):
                    continue
                if error.status_code in (400, 422) and sent.body.get("n", 1) > 1:
                    raise NotServedError(reason) from None
                if error.status_code not in _RETRIED and error.status_code < 500:
                    raise RefusedError(reason) from None
                wait = _retry_after(error)
            except TimeoutError:
                reason = f"no answer within {self._limits.timeout_s:g} s"
            except APIConnectionError as error:
                reason = f"no connection ({error.__cause__ or error})"
            except (APIError, MalformedReplyError) as error:
                reason = str(error)
            except NotAdmittedError as error:
                patience -= error.retry_s or 0.0
                if error.retry_s is None or patience < 0:
                    raise
                await asyncio.sleep(error.retry_s + 0.1 * self._pause(1))
                continue
            attempts += 1
            if attempts > self._limits.max_retries:
                raise BackendError(f"{reason} (after {attempts} attempts)")
            pause = self._pause(attempts)
            await asyncio.sleep(pause if wait is None else wait)

    async def _attempt(self, build: Callable[[], Sent], read: Callable[[bytes], Result], retry: bool) -> Result:
        """One request. It is built when its turn has come, by what earlier ones taught about the server."""
        async with self._slots:
            ticket = await self._gate.enter(self._place.tenant, retry)
            verdict, reason = Verdict.ABANDONED, ""
            try:
                sent, begin = build(), time.monotonic()
                with span("call", model=self._place.model, server=self._place.base_url, retry=retry):
                    async with asyncio.timeout(self._limits.timeout_s):
                        content = await self._post(sent)
                late = time.monotonic() - begin > _LATE * self._limits.timeout_s
                verdict = Verdict.BUSY if late else Verdict.SERVED
                return read(content)
            except Exception as error:
                verdict, reason = self._judged(error, verdict)
                raise
            finally:
                self._gate.leave(ticket, verdict, reason)

    async def _post(self, sent: Sent) -> bytes:
        import httpx2

        # The client's own post: its typed methods spend longer on a request than its whole transport does.
        reply = await self.client.post(sent.url, cast_to=httpx2.Response, body=sent.body)
        return reply.content

    def _judged(self, error: Exception, verdict: Verdict) -> tuple[Verdict, str]:
        """What a failed attempt says about the server, and the reason for people."""
        from openai import APIConnectionError, APIStatusError

        if isinstance(error, TimeoutError):
            return Verdict.UNAVAILABLE, f"no answer within {self._limits.timeout_s:g} s"
        if isinstance(error, APIStatusError):
            status, reason = error.status_code, f"HTTP {error.status_code}: {error.message[:200]}"
            if status == 429:
                return Verdict.BUSY, reason
            if status in (408, 503, 504):
                return Verdict.UNAVAILABLE, reason
            return (Verdict.BROKEN if status >= 500 else Verdict.SERVED), reason
        if isinstance(error, APIConnectionError):
            return Verdict.BROKEN, f"no connection ({error.__cause__ or error})"
        if isinstance(error, MalformedReplyError) and not error.healthy:
            return Verdict.BROKEN, str(error)
        return verdict, ""

    def _learnt(self, error: APIStatusError, sent: Sent) -> bool:
        beside_v1 = self._place.root != self._place.base_url and sent.url == self._place.root + self._dialect.score_path
        if error.status_code == 404 and beside_v1 and error.param is None:
            self._habits.below_v1 = True
            return True
        return self._habits.learn(error, sent.body)

    def _pause(self, attempts: int) -> float:
        return self._limits.pause_s(attempts - 1) * (0.5 + 0.5 * random.random())


class RefusedError(BackendError):
    """The server refuses the request and would do so again."""


class NotServedError(BackendError):
    """The server refuses a request for several choices that it may well serve one by one."""


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds the server asks to wait, at most half a minute; None if it does not say."""
    try:
        return min(_LONGEST_WAIT_S, max(0.0, float(error.response.headers.get("retry-after", ""))))
    except ValueError:
        return None
