"""The backend for any server that speaks the OpenAI protocol: vLLM, the engine's own server, hosted models."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

from env.backends._base import Draw, DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled
from env.backends.openai_call import ChatCalls, Habits, Limits, NotServedError
from env.errors import BackendError

_ASKS = 4
"""How often a prompt is asked for draws that are still missing."""

_SEED_SPAN = 2**31 - 2**20
"""Seeds stay below 2**31, which every server takes, with room for the draw index."""


class OpenAIBackend:
    """Serves one model of one server over chat completions.

    Draws: a run of consecutive indices is asked for in one request with ``n`` choices. Its seed is a hash of the prompt
    and the sampling parameters (the seed among them) plus the first index, so that different draws differ; servers that
    give choice ``j`` the seed ``seed + j`` (vLLM and the torch engine do) then make draw ``i`` the same draw however it
    is asked. A server that refuses or ignores ``n`` is asked one draw at a time. Greedy draws are all the same one.

    Tokens: every draw states the prompt tokens of its request. Output tokens are counted by the log-probabilities of a
    choice where served; else the reply's ``completion_tokens`` are split evenly, the remainder to the first choices.
    Log-probabilities are summed where served (vLLM's are at temperature 1), and None elsewhere.
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
    ) -> None:
        """Nothing is connected yet.

        Args:
            base_url: the server's URL up to and with ``/v1``.
            model: the name the server knows the model by.
            revision: what the user states about the weights; part of the identity.
            api_key: sent as a bearer token; never shown.
            timeout_s: limit of one attempt.
            max_retries: further attempts after 408, 409, 429, 5xx, connection errors, timeouts and malformed replies.
            concurrency: requests in flight at once.
            backoff_s: wait before the first retry, doubled each time.

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
        self._habits = Habits()
        self._calls: ChatCalls | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"OpenAIBackend({self._model!r}, base_url={self._public_url!r})"

    @property
    def identity(self) -> ModelIdentity:
        """The model's name and the revision the user stated."""
        return ModelIdentity(self._model, self._revision)

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`."""
        calls = self._open_calls()
        tasks = [asyncio.create_task(self._outcome(calls, number, one)) for number, one in enumerate(requests)]
        try:
            for settled in asyncio.as_completed(tasks):
                yield await settled
        finally:
            for task in tasks:
                task.cancel()

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`; not served over the OpenAI protocol.

        Raises:
            BackendError: always.
        """
        raise BackendError(
            f"{self._model}: verifiers are not served over the OpenAI protocol; use a local checkpoint as the verifier"
        )

    async def close(self) -> None:
        """Close the connections; later calls raise."""
        self._closed = True
        calls, self._calls = self._calls, None
        if calls is not None:
            await calls.client.close()

    @property
    def _public_url(self) -> str:
        parts = urlsplit(self._base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def _open_calls(self) -> ChatCalls:
        """The connections of the running event loop."""
        if self._closed:
            raise BackendError(f"the backend of {self._model} is closed; open a new one")
        loop = asyncio.get_running_loop()
        if self._calls is None or self._loop is not loop:
            from openai import AsyncOpenAI

            client = AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key or "none",
                timeout=2 * self._limits.timeout_s,  # only a second net: `ChatCalls` keeps the time itself
                max_retries=0,
            )
            self._calls = ChatCalls(client, self._model, self._limits, self._concurrency, self._habits)
            self._loop = loop
        return self._calls

    async def _outcome(self, calls: ChatCalls, position: int, request: DrawRequest) -> Settled | Failed:
        try:
            return Settled(position, await self._draws(calls, request))
        except BackendError as error:
            return Failed(position, self._without_secrets(f"{self._model} at {self._public_url}: {error}"))
        except Exception as error:  # the contract: a failed call is an outcome, whatever went wrong
            reason = f"{self._model} at {self._public_url}: {type(error).__name__}: {error}"
            return Failed(position, self._without_secrets(reason))

    async def _draws(self, calls: ChatCalls, request: DrawRequest) -> tuple[Draw, ...]:
        wanted = list(dict.fromkeys(request.indices))
        greedy = request.sampling.temperature == 0
        if greedy:
            wanted = wanted[:1]
        held: dict[int, Draw] = {}
        for ask in range(_ASKS):
            missing = [index for index in wanted if index not in held]
            if not missing:
                break
            runs = _runs(missing, single=self._habits.single or ask > 0)
            for draws in await _gather([self._run(calls, request, first, count) for first, count in runs]):
                held.update((draw.index, draw) for draw in draws)
        if any(index not in held for index in wanted):
            raise BackendError(f"the server gave {len(held)} of {len(wanted)} draws, asked {_ASKS} times")
        if greedy:
            return tuple(replace(held[wanted[0]], index=index) for index in request.indices)
        return tuple(held[index] for index in request.indices)

    async def _run(self, calls: ChatCalls, request: DrawRequest, first: int, count: int) -> list[Draw]:
        """Draws ``first`` to ``first + count - 1``, or as many as the server gives."""
        seed = _base_seed(request) + first
        try:
            draws = await calls.draws(request.messages, request.sampling, seed, first, count)
        except NotServedError:
            # Perhaps only ``n`` is refused: one draw alone tells. If that is refused too, its error is the answer.
            draws = await calls.draws(request.messages, request.sampling, seed, first, 1)
            self._habits.single = True
        if count > 1 and len(draws) == 1:
            self._habits.single = True
        return draws

    def _without_secrets(self, reason: str) -> str:
        secrets = [self._api_key, urlsplit(self._base_url).password]
        for secret in secrets:
            if secret:
                reason = reason.replace(secret, "***")
        return reason[:600]


async def _gather(calls: Sequence[Coroutine[None, None, list[Draw]]]) -> list[list[Draw]]:
    """All results; the first failure cancels the rest."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _runs(indices: Sequence[int], single: bool) -> list[tuple[int, int]]:
    """Maximal runs of consecutive indices as (first, count); runs of one where ``single``."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and not single and index == sum(runs[-1]):
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def _base_seed(request: DrawRequest) -> int:
    """A number that stands for the prompt and its sampling parameters, in [0, 2**31 - 2**20)."""
    sampling = request.sampling
    parts = [
        [[message.role, message.content] for message in request.messages],
        [sampling.temperature, sampling.top_p, sampling.max_tokens, list(sampling.stop), sampling.seed],
    ]
    digest = hashlib.sha256(json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()).digest()
    return int.from_bytes(digest[:8], "big") % _SEED_SPAN
