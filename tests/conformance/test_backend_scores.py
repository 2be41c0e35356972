"""What every backend of a verifier must do, in process and over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from env.backends import Backend, Failed, Message, OpenAIBackend, ScoreRequest, Settled, TorchBackend
from env.backends.openai_dialect import Dialect
from env.errors import BackendError
from tests.conformance.backends import ask, outcomes


async def scores(backend: Backend, *requests: ScoreRequest) -> list[float]:
    found = sorted([outcome async for outcome in backend.score(requests)], key=lambda outcome: outcome.position)
    values = [draw.score for one in found if isinstance(one, Settled) for draw in one.draws]
    assert len(values) == len(requests), found
    return [value for value in values if value is not None]


def candidate(answer: str, partial: bool = False) -> ScoreRequest:
    return ScoreRequest((Message("user", "w1 w2"), Message("assistant", answer)), partial)


@pytest.mark.asyncio
async def test_a_verifier_gives_one_score_a_candidate(judge: Backend) -> None:
    values = await scores(judge, *(candidate(f"w{n} = 7") for n in range(20)))
    assert all(0 <= value <= 1 for value in values)
    assert len(set(values)) > 10
    assert await scores(judge, candidate("w3 = 7")) == pytest.approx([values[3]], abs=1e-6)


@pytest.mark.asyncio
async def test_a_partial_answer_is_judged_unclosed(judge: Backend) -> None:
    whole, partial = await scores(judge, candidate("w3 = 7"), candidate("w3 = 7", partial=True))
    assert whole != pytest.approx(partial, abs=1e-6)


@pytest.mark.asyncio
async def test_a_candidate_beyond_the_context_fails_alone(judge: Backend) -> None:
    outcomes = {one.position: one async for one in judge.score([candidate("w1"), candidate("w1 " * 300)])}
    assert isinstance(outcomes[0], Settled)
    assert isinstance(outcomes[1], Failed)
    assert "tokens" in outcomes[1].reason


@pytest.mark.asyncio
async def test_draws_of_a_verifier_are_an_error(judge: Backend) -> None:
    with pytest.raises(BackendError, match="verifier"):
        await outcomes(judge, [ask("w1")])


@pytest.mark.asyncio
async def test_scores_are_the_same_in_process_and_over_http(verifier: Path, served: str) -> None:
    local = TorchBackend(verifier, "cpu")
    remote = OpenAIBackend(served, "judge", dialect=Dialect(api="classify"))
    asked = [candidate(f"w{n}", partial=n % 2 == 1) for n in range(8)]
    assert await scores(local, *asked) == pytest.approx(await scores(remote, *asked), abs=1e-6)
    await local.close()
    await remote.close()
