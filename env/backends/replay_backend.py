"""The backend without a model: answers from recorded draws, and says so where there are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from env.backends._base import Draw, DrawRequest, Failed, ModelIdentity, Sampling, ScoreRequest, Settled
from env.backends.replay_address import Address, address_of
from env.backends.replay_pool import PoolError, Recorded, RecordedPool
from env.errors import ApportionError, BackendError

_SLICE = 64
"""Requests looked up at a time, off the event loop."""


class ReplayBackend:
    """Serves one model of a pool of recorded draws.

    Draw ``i`` of a prompt is the recorded draw ``i``; the prompt's last message says whose (`address_of`). What was not
    recorded is `Failed` with how many draws are held, never another row. Temperature, top_p and seed are those of the
    recording, whatever the request says. ``max_tokens`` addresses the length: a draw longer than that is answered by
    the last answer probed at or before it, with reason ``length`` and ``max_tokens`` output tokens; without such a
    probe it is `Failed`, for nobody knows what the model would have said. A draw's text is its answer and nothing else.
    """

    def __init__(self, pool: RecordedPool, model: str) -> None:
        """Take a model's draws.

        Raises:
            BackendError: the pool holds no draws of that model.
        """
        if model not in pool.models:
            raise BackendError(f"{pool.name} holds no draws of {model!r}; it has {', '.join(pool.models)}")
        self._pool = pool
        self._model = model
        self._closed = False

    def __repr__(self) -> str:
        return f"ReplayBackend({self._model!r}, pool={self._pool.name!r})"

    @property
    def identity(self) -> ModelIdentity:
        """The model's name in the pool and the content hash of the pool's file."""
        return ModelIdentity(self._model, f"replay:{self._pool.revision}")

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`."""
        if self._closed:
            raise BackendError(f"the backend of {self._model} is closed; open a new one")
        for start in range(0, len(requests), _SLICE):
            for outcome in await asyncio.to_thread(self._outcomes, start, requests[start : start + _SLICE]):
                yield outcome

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`; a pool holds no scores.

        Raises:
            BackendError: always.
        """
        raise BackendError(f"{self._model}: a pool of recorded draws holds no verifier scores; use a live verifier")
        yield  # pragma: no cover  (makes this an asynchronous generator, as the interface says)

    async def close(self) -> None:
        """Let go of the pool; later calls raise."""
        self._closed = True

    def _outcomes(self, start: int, requests: Sequence[DrawRequest]) -> list[Settled | Failed]:
        outcomes: list[Settled | Failed] = []
        for position, request in enumerate(requests, start):
            try:
                outcomes.append(Settled(position, self._draws(request)))
            except ApportionError as error:
                outcomes.append(Failed(position, f"{self._model} in {self._pool.name}: {error}"))
        return outcomes

    def _draws(self, request: DrawRequest) -> tuple[Draw, ...]:
        if request.sampling.stop:
            raise BackendError("a recorded draw has its answer only, so stop strings cannot cut it; leave them out")
        address = address_of(request.messages)
        held = self._pool.held(self._model, address)
        missing = [index for index in request.indices if index not in held]
        if missing:
            raise PoolError(self._unrecorded(address, missing, len(held)))
        return tuple(
            replayed(index, self._pool.recorded(held[index]), request.sampling, address) for index in request.indices
        )

    def _unrecorded(self, address: Address, missing: Sequence[int], held: int) -> str:
        listed = ", ".join(map(str, missing[:4])) + (", ..." if len(missing) > 4 else "")
        reason = f"draw {listed} of {address} is not recorded; {held} draws of it are held"
        if not held:
            others = self._pool.upstreams(self._model, address.stage, address.example)
            if others:
                reason += f" ({others} other upstream answers of this example are)"
        return reason


def replayed(index: int, recorded: Recorded, sampling: Sampling, address: Address) -> Draw:
    """A recorded draw as the request's ``max_tokens`` would have left it.

    Raises:
        PoolError: it is longer, and no answer was recorded at or before ``max_tokens``.
    """
    if recorded.tokens_out <= sampling.max_tokens:
        return Draw(index, recorded.answer or "", "stop", recorded.tokens_in, recorded.tokens_out)
    try:
        answer = recorded.cut_at(sampling.max_tokens)
    except LookupError as error:
        raise PoolError(
            f"draw {index} of {address} has {recorded.tokens_out} tokens, more than max_tokens = "
            f"{sampling.max_tokens}, and {error}; raise max_tokens to {recorded.least_tokens} or more"
        ) from None
    return Draw(index, answer or "", "length", recorded.tokens_in, sampling.max_tokens)
