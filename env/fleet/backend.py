"""The backend of a model that the fleet serves: acquires its server, asks it as any other, survives restarts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cached_property
from typing import TypeVar

from env.backends._base import DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled
from env.backends.openai_backend import OpenAIBackend
from env.backends.openai_dialect import Dialect
from env.backends.waits import waited
from env.errors import BackendError
from env.fleet.errors import FleetError
from env.fleet.fleet import Lease
from env.fleet.load import FleetFile
from env.fleet.shared import SharedFleet, shared_fleet
from env.fleet.variants import base_name
from env.spec.pipeline import FleetModel

_ROUNDS = 3
"""How often requests that failed are asked again after the server came back."""

Request = TypeVar("Request", DrawRequest, ScoreRequest)
Ask = Callable[[OpenAIBackend, Sequence[Request]], AsyncIterator[Settled | Failed]]


class FleetBackend:
    """Serves one model of the operator's fleet file.

    The server is held from the first to the last outcome of a call, so that models which do not fit together take turns
    call by call. What fails because the server died is asked again once it is back.
    """

    def __init__(self, file: FleetFile, spec: FleetModel, fleet: SharedFleet | None = None) -> None:
        """Nothing is started yet.

        Args:
            file: the fleet file.
            spec: the study's model.
            fleet: who gives servers; this process's fleet for that file by default.

        Raises:
            FleetError: the file has no such model.
        """
        file.model(spec.model)
        self._file = file
        self._spec = spec
        self._fleet = fleet or shared_fleet(file)
        self._dialect = Dialect(spec.api, spec.label, spec.scores, rewards=spec.rewards, steps=spec.steps)
        self._backend: OpenAIBackend | None = None
        self._url = ""
        self._closed = False
        self.load_seconds = 0.0
        """How long calls waited for loads they caused, and for restarts; no part of inference."""

    @cached_property
    def identity(self) -> ModelIdentity:
        """The model's name in the fleet, its weights, and what else decides its draws: engine, dtype, quantisation.

        Engine knobs that only change how fast answers come are no part of it: their variants share draws.
        """
        from env.engine.config import checkpoint_revision

        model = self._file.model(self._spec.model)
        checkpoint = self._file.checkpoint(self._spec.model)
        weights = self._spec.revision or model.revision
        if not weights:
            weights = model.checkpoint if checkpoint is None else checkpoint_revision(checkpoint)
        served = [self._file.spec.engine, model.dtype, model.quantisation or "plain"]
        revision = self._dialect.revision(f"{weights} ({', '.join(served)})")
        return ModelIdentity(base_name(self._spec.model), revision)

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`."""

        def ask(backend: OpenAIBackend, part: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
            return backend.generate(part)

        async for outcome in self._asked(requests, ask):
            yield outcome

    async def stream(self, request: DrawRequest, on_text: Callable[[str], None]) -> Settled | Failed:
        """See `StreamingBackend.stream`."""
        if self._closed:
            raise BackendError(f"the backend of {self._spec.model} is closed; open a new one")
        wanted = time.monotonic()
        async with self._fleet.acquire([self._spec.model]) as lease:
            self.load_seconds += lease.load_seconds
            waited(wanted, lease.load_seconds)
            backend = await self._at(lease)
            return await backend.stream(request, on_text)

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`.

        Raises:
            BackendError: the model is asked for text.
        """
        if self._dialect.draws:
            raise BackendError(
                f"{self._spec.model} is no verifier: it is asked for text (api: {self._spec.api}); set api: classify, "
                "pooling, score or reward on a fleet model with runner: pooling"
            )

        def ask(backend: OpenAIBackend, part: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
            return backend.score(part)

        return self._asked(requests, ask)

    async def close(self) -> None:
        """Close the connections; the server stays for others."""
        self._closed = True
        backend, self._backend = self._backend, None
        if backend is not None:
            await backend.close()

    async def _asked(self, requests: Sequence[Request], ask: Ask[Request]) -> AsyncIterator[Settled | Failed]:
        """One outcome per request, from a server held until the last of them."""
        if self._closed:
            raise BackendError(f"the backend of {self._spec.model} is closed; open a new one")
        if not requests:
            return
        wanted = time.monotonic()
        async with self._fleet.acquire([self._spec.model]) as lease:
            self.load_seconds += lease.load_seconds
            waited(wanted, lease.load_seconds)
            backend = await self._at(lease)
            open_ = list(range(len(requests)))
            for round_ in range(_ROUNDS):
                failed: list[Failed] = []
                async for outcome in ask(backend, [requests[position] for position in open_]):
                    position = open_[outcome.position]
                    if isinstance(outcome, Settled):
                        yield Settled(position, outcome.draws)
                    elif round_ < _ROUNDS - 1 and _server_gone(outcome.reason):
                        failed.append(Failed(position, outcome.reason, outcome.draws))
                    else:
                        yield Failed(position, outcome.reason, outcome.draws)
                if not failed:
                    return
                try:
                    await self._restarted()
                except FleetError as error:
                    for one in failed:
                        yield Failed(one.position, f"{one.reason}; {error}", one.draws)
                    return
                backend.server_restarted()
                open_ = [one.position for one in failed]

    async def _restarted(self) -> None:
        """Wait until the server, which the fleet restarts, answers again.

        Raises:
            FleetError: it was given up.
        """
        since = time.monotonic()
        await self._fleet.ready(self._spec.model)
        seconds = time.monotonic() - since
        self.load_seconds += seconds
        waited(since, seconds)

    async def _at(self, lease: Lease) -> OpenAIBackend:
        """The backend on the server's URL, which a later load may have changed."""
        url = lease.urls[self._spec.model]
        if self._backend is None or url != self._url:
            if self._backend is not None:
                await self._backend.close()
            self._url = url
            self._backend = OpenAIBackend(
                base_url=url,
                model=self._spec.model,
                revision=self.identity.revision,
                api_key=lease.api_key,
                timeout_s=self._spec.timeout_s,
                max_retries=self._spec.max_retries,
                concurrency=self._spec.concurrency,
                dialect=self._dialect,
            )
        return self._backend


def _server_gone(reason: str) -> bool:
    """Whether a failure is the server's, not the request's: retried to the end, or not sent while it is down."""
    return reason.endswith("attempts)") or "nothing is sent to it" in reason
