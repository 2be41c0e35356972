"""Loads of model servers are no inference: not in a draw's seconds, not in a trial's, but stated beside them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from env.backends import Backend, DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled
from env.backends.waits import waited
from tests.env.execution.test_environment import EXAMPLES, allocation, environment
from tests.simulated import DiceBackends

LOAD_S = 0.5
TURN_S = 0.3


class Loading:
    """A model whose server first waits for its turn and loads, at every call."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def identity(self) -> ModelIdentity:
        return self._inner.identity

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        since = time.monotonic()
        await asyncio.sleep(TURN_S + LOAD_S)
        waited(since, LOAD_S)
        await asyncio.sleep(0.1)
        async for outcome in self._inner.generate(requests):
            yield outcome

    def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        return self._inner.score(requests)

    async def close(self) -> None:
        await self._inner.close()


class OneLoads(DiceBackends):
    """Backends of which only the large model's has to load."""

    def backend(self, model: str) -> Backend:
        inner = super().backend(model)
        return Loading(inner) if model == "large" else inner


@pytest.mark.asyncio
async def test_seconds_of_draws_and_trials_hold_no_loads_and_loads_are_stated() -> None:
    begun = time.monotonic()
    [one] = await environment(OneLoads()).run_batch([allocation(2, 1, 2)], EXAMPLES, "b1")
    elapsed = time.monotonic() - begun
    assert one.spend.load_seconds == pytest.approx(LOAD_S)
    assert one.spend.seconds <= elapsed - LOAD_S - TURN_S + 0.05
    reading = [stage.seconds for evidence in one.evidence for stage in evidence.stages if stage.stage == "read"]
    assert all(seconds is not None for seconds in reading)
    # The model itself was asked for a tenth of a second and what the dice take; had loads and turns been in, 0.9 s.
    assert 0.09 < sum(seconds or 0 for seconds in reading) < 0.1 + (elapsed - LOAD_S - TURN_S)
    assert sum(seconds or 0 for seconds in reading) < elapsed - LOAD_S - TURN_S


@pytest.mark.asyncio
async def test_a_models_loads_are_shared_by_the_trials_that_asked_it() -> None:
    both = [allocation(1, 1, 1), allocation(1, 1, 2), allocation(1, 1, 4)]
    results = await environment(OneLoads()).run_batch(both, EXAMPLES, "b1")
    assert [r.spend.load_seconds for r in results] == pytest.approx([LOAD_S / 3] * 3)
    again = await environment(OneLoads()).run_batch([allocation(2, 1, 1, model="large")], EXAMPLES, "b1")
    assert again[0].spend.load_seconds == pytest.approx(2 * LOAD_S), "asked in two stages, loaded twice"
