"""The backend for any server that speaks the OpenAI protocol: vLLM, the engine's own server, hosted models."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

from env.backends._base import Draw, DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled, continues
from env.backends.openai_call import Calls, Limits, NotServedError, Place
from env.backends.openai_dialect import Dialect, Habits
from env.egress import Egress
from env.errors import BackendError
from env.traffic import ServerGate, gate_of

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_ASKS = 4
"""How often a prompt is asked for draws that are still missing."""

_SEED_SPAN = 2**31 - 2**20
"""Seeds stay below 2**31, which every server takes, with room for the draw index."""

_TOLD_BY_THE_CLIENT = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")

_Outcome = Settled | Failed


class OpenAIBackend:
    """Serves one model of one server over chat completions, text completions, or vLLM's endpoints for verifiers.

    Draws: a run of consecutive indices is asked for in one request with ``n`` choices. Its seed is a hash of the prompt
    and the sampling parameters (the seed among them) plus the first index, so that different draws differ; servers that
    give choice ``j`` the seed ``seed + j`` (vLLM and the torch engine do) then make draw ``i`` the same draw however it
    is asked. A server that refuses or ignores ``n`` is asked one draw at a time; one that refuses or ignores ``seed``
    still gives independent draws, other ones each time. Greedy draws are all the same one.

    Tokens: every draw states the prompt tokens of its request. Output tokens are counted by the log-probabilities of a
    choice where served; else the reply's ``completion_tokens`` are split evenly, the remainder to the first choices.
    Log-probabilities are summed where served (vLLM's are at temperature 1), and None elsewhere.

    Traffic: all backends of this process that use one server share its gate (`env.traffic`).
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        revision: str = "",
        api_key: str | None = None,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        concurrency: int = 32,
        backoff_s: float = 0.5,
        dialect: Dialect | None = None,
        tenant: str = "",
        egress: Egress | None = None,
    ) -> None:
        """Nothing is connected yet.

        Args:
            base_url: the server's URL up to and with ``/v1``.
            model: the name the server knows the model by.
            revision: what the user states about the weights; part of the identity.
            api_key: sent as a bearer token; never shown.
            timeout_s: limit of one attempt.
            max_retries: further attempts after 408, 409, 429, 5xx, connection errors, timeouts and malformed replies.
            concurrency: requests in flight at once, at most; fewer while the server is overloaded.
            backoff_s: wait before the first retry, doubled each time.
            dialect: how the server is asked; chat completions by default.
            tenant: whose requests these are; tenants of one server are served in turn.
            egress: which addresses may be reached; any where None, as for URLs that the operator states.

        Raises:
            BackendError: the URL is not http or https.
        """
        if urlsplit(base_url).scheme not in ("http", "https"):
            raise BackendError(f"the base URL of {model!r} must start with http:// or https://")
        self._base_url = base_url
        self._model = model
        self._revision = revision
        self._api_key = api_key
        self._limits = Limits(timeout_s, max_retries, backoff_s)
        self._concurrency = concurrency
        self._dialect = dialect or Dialect()
        self._tenant = tenant
        self._egress = egress
        self._habits = Habits()
        self._gate: ServerGate | None = None
        self._calls: Calls | None = None
        self._streams: httpx2.AsyncClient | None = None
        """For replies that are read while they come; of the same event loop."""

        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._model!r}, base_url={self._public_url!r})"

    @property
    def identity(self) -> ModelIdentity:
        """The model's name and the revision the user stated, with what else decides its draws."""
        return ModelIdentity(self._model, self._dialect.revision(self._revision))

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`."""
        calls = self._open_calls()
        if not self._dialect.draws:
            raise BackendError(f"{self._model} is served as a verifier ({self._dialect.api}): ask it for scores")
        async for outcome in _as_known(self._outcome(calls, number, one) for number, one in enumerate(requests)):
            yield outcome

    async def stream(self, request: DrawRequest, on_text: Callable[[str], None]) -> Settled | Failed:
        """See `StreamingBackend.stream`."""
        calls = self._open_calls()
        if self._streams is None:
            from env.backends.openai_transport import open_http_client

            net = 2 * self._limits.timeout_s
            self._streams = open_http_client(self._base_url, self._concurrency, net, self._egress, streams=True)
            self._streams.headers["Authorization"] = f"Bearer {self._api_key or 'none'}"
        [index] = request.indices
        seed = base_seed(request) + index
        try:
            draw = await calls.stream(self._streams, request.messages, request.sampling, seed, index, on_text)
        except BackendError as error:
            return Failed(0, self._reason(error))
        return Settled(0, (draw,))

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`.

        Raises:
            BackendError: the model is asked for text.
        """
        if self._dialect.draws:
            raise BackendError(
                f"{self._model} is no verifier: it is served for text (api: {self._dialect.api}); set api: classify "
                "(or pooling) on a model that scores, or use a local checkpoint as the verifier"
            )
        calls = self._open_calls()
        return _as_known(self._judgement(calls, number, one) for number, one in enumerate(requests))

    def server_restarted(self) -> None:
        """Whoever watches the server knows that it serves again; it is asked at once."""
        if self._gate is not None:
            self._gate.restarted()

    async def close(self) -> None:
        """Close the connections; later calls raise."""
        self._closed = True
        calls, self._calls, self._gate = self._calls, None, None
        streams, self._streams = self._streams, None
        if streams is not None:
            await streams.aclose()
        if calls is not None:
            await calls.client.close()

    @property
    def _public_url(self) -> str:
        parts = urlsplit(self._base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def _open_calls(self) -> Calls:
        """The connections of the running event loop."""
        if self._closed:
            raise BackendError(f"the backend of {self._model} is closed; open a new one")
        loop = asyncio.get_running_loop()
        if self._calls is None or self._loop is not loop:
            self._streams = None
            self._gate = gate_of(self._public_url, self._concurrency)
            place = Place(self._model, self._base_url.rstrip("/"), self._tenant)
            self._calls = Calls(
                self._client(), self._gate, place, self._limits, self._concurrency, self._dialect, self._habits
            )
            self._loop = loop
        return self._calls

    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, Omit

        from env.backends.openai_transport import open_http_client

        # The client would tell every server about this machine and its Python.
        untold = {f"X-Stainless-{name}": Omit() for name in _TOLD_BY_THE_CLIENT}
        net = 2 * self._limits.timeout_s  # only a second net: `Calls` keeps the time itself
        return AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._api_key or "none",
            timeout=net,
            max_retries=0,
            default_headers=cast("dict[str, str]", untold),
            http_client=open_http_client(self._base_url, self._concurrency, net, self._egress),
        )

    async def _outcome(self, calls: Calls, position: int, request: DrawRequest) -> _Outcome:
        held: dict[int, Draw] = {}
        try:
            if continues(request.messages):
                await calls.require_continuation(request)
            await self._fill(calls, request, held)
        except Exception as error:  # the contract: a failed call is an outcome, whatever went wrong
            return Failed(position, self._reason(error), _in_order(request, held))
        return Settled(position, _in_order(request, held))

    async def _judgement(self, calls: Calls, position: int, request: ScoreRequest) -> _Outcome:
        try:
            return Settled(position, (await calls.score(request),))
        except Exception as error:
            return Failed(position, self._reason(error))

    async def _fill(self, calls: Calls, request: DrawRequest, held: dict[int, Draw]) -> None:
        """Ask until all wanted draws are held; what came before a failure stays held.

        Raises:
            BackendError: the first failure of a call, or draws that never came.
        """
        wanted = _wanted(request)
        for ask in range(_ASKS):
            missing = [index for index in wanted if index not in held]
            if not missing:
                return
            runs = _runs(missing, single=self._habits.single or ask > 0)
            found = await _gather([self._run(calls, request, first, count) for first, count in runs])
            for draws in found:
                if not isinstance(draws, BaseException):
                    held.update((draw.index, draw) for draw in draws)
            for failure in found:
                if isinstance(failure, BaseException):
                    raise failure
        if any(index not in held for index in wanted):
            raise BackendError(f"the server gave {len(held)} of {len(wanted)} draws, asked {_ASKS} times")

    async def _run(self, calls: Calls, request: DrawRequest, first: int, count: int) -> list[Draw]:
        """Draws ``first`` to ``first + count - 1``, or as many as the server gives."""
        seed = base_seed(request) + first
        try:
            draws = await calls.draws(request.messages, request.sampling, seed, first, count)
        except NotServedError:
            # Perhaps only ``n`` is refused: one draw alone tells. If that is refused too, its error is the answer.
            draws = await calls.draws(request.messages, request.sampling, seed, first, 1)
            self._habits.single = True
        if count > 1 and len(draws) == 1:
            self._habits.single = True
        return draws

    def _reason(self, error: Exception) -> str:
        kind = "" if isinstance(error, BackendError) else f"{type(error).__name__}: "
        return self._without_secrets(f"{self._model} at {self._public_url}: {kind}{error}")

    def _without_secrets(self, reason: str) -> str:
        secrets = [self._api_key, urlsplit(self._base_url).password]
        for secret in secrets:
            if secret:
                reason = reason.replace(secret, "***")
        return reason[:600]


async def _as_known(outcomes: Iterable[Coroutine[None, None, _Outcome]]) -> AsyncIterator[_Outcome]:
    """Run all at once and yield each outcome when it is known; leaving early cancels the rest."""
    tasks = [asyncio.ensure_future(outcome) for outcome in outcomes]
    try:
        for known in asyncio.as_completed(tasks):
            yield await known
    finally:
        for task in tasks:
            task.cancel()


async def _gather(calls: Sequence[Coroutine[None, None, list[Draw]]]) -> Sequence[list[Draw] | BaseException]:
    """Each call's result or failure."""
    if len(calls) == 1:
        try:
            return [await calls[0]]
        except Exception as error:
            return [error]
    return await asyncio.gather(*calls, return_exceptions=True)


def _wanted(request: DrawRequest) -> list[int]:
    """Draws to ask for: each once, and one for all where they are greedy."""
    distinct = list(dict.fromkeys(request.indices))
    return distinct[:1] if request.sampling.temperature == 0 else distinct


def _in_order(request: DrawRequest, held: dict[int, Draw]) -> tuple[Draw, ...]:
    """The draws held, in the order asked."""
    if request.sampling.temperature == 0:
        return tuple(replace(draw, index=index) for draw in held.values() for index in request.indices)
    return tuple(held[index] for index in request.indices if index in held)


def _runs(indices: Sequence[int], single: bool) -> list[tuple[int, int]]:
    """Maximal runs of consecutive indices as (first, count); runs of one where ``single``."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and not single and index == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def base_seed(request: DrawRequest) -> int:
    """A number that stands for the prompt and its sampling parameters, in [0, 2**31 - 2**20)."""
    sampling = request.sampling
    parts = [
        [[message.role, message.content] for message in request.messages],
        [sampling.temperature, sampling.top_p, sampling.max_tokens, list(sampling.stop), sampling.seed],
    ]
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEED_SPAN
