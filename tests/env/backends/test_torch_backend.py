"""The in-process backend, beyond what every backend does."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from env.backends import DrawRequest, Failed, Message, Sampling, ScoreRequest, Settled, TorchBackend
from env.engine import checkpoint_revision
from env.errors import BackendError, CheckpointError
from tests.env.engine.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("torch") / "tiny")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("torch") / "verifier", verifier=True)


def ask(text: str, count: int = 1) -> DrawRequest:
    return DrawRequest((Message("user", text),), Sampling(max_tokens=20), tuple(range(count)))


def test_importing_the_backends_loads_neither_torch_nor_the_openai_client() -> None:
    code = "import sys, env.backends, env.engine; sys.exit(any(m in sys.modules for m in ('torch', 'openai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.asyncio
async def test_identity_is_known_without_loading(tiny: Path) -> None:
    backend = TorchBackend(tiny, "cpu", name="small")
    assert (backend.identity.name, backend.identity.revision) == ("small", checkpoint_revision(tiny))
    assert backend._lease is None
    await backend.close()


def test_a_folder_that_is_no_checkpoint_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        TorchBackend(tmp_path)


@pytest.mark.asyncio
async def test_weights_that_cannot_be_loaded_fail_every_request(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"nonsense")
    backend = TorchBackend(folder, "cpu")
    found = [outcome async for outcome in backend.generate([ask("w1"), ask("w2")])]
    assert all(isinstance(one, Failed) and "cannot be read" in one.reason for one in found)
    await backend.close()


@pytest.mark.asyncio
async def test_messages_that_cannot_be_tokenised_fail_alone(tiny: Path) -> None:
    backend = TorchBackend(tiny, "cpu")
    found = {outcome.position: outcome async for outcome in backend.generate([ask("w1"), ask("\ud800"), ask("w2")])}
    assert isinstance(found[1], Failed)
    assert "tokenised" in found[1].reason
    assert isinstance(found[0], Settled)
    assert isinstance(found[2], Settled)
    await backend.close()


@pytest.mark.asyncio
async def test_outcomes_come_as_they_are_ready(tiny: Path) -> None:
    backend = TorchBackend(tiny, "cpu", max_rows=16)
    arrived = []
    async for _ in backend.generate([ask(f"w{n % 90} w{n // 90}", 4) for n in range(100)]):
        arrived.append(time.monotonic())
    assert arrived[-1] - arrived[0] > 3 * (arrived[9] - arrived[0])
    await backend.close()


@pytest.mark.asyncio
async def test_the_event_loop_stays_free_while_the_engine_works(tiny: Path) -> None:
    backend = TorchBackend(tiny, "cpu")
    [_ async for _ in backend.generate([ask("w1")])]
    gaps: list[float] = []

    async def watch() -> None:
        while True:
            begin = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - begin)

    watcher = asyncio.create_task(watch())
    [_ async for _ in backend.generate([ask(f"w{n % 90} w{n // 90}", 8) for n in range(200)])]
    watcher.cancel()
    assert len(gaps) > 5
    assert sorted(gaps)[len(gaps) // 2] < 0.1
    await backend.close()


@pytest.mark.asyncio
async def test_backends_of_one_checkpoint_share_its_engine(tiny: Path) -> None:
    one, two = TorchBackend(tiny, "cpu"), TorchBackend(tiny, "cpu")
    for backend in (one, two):
        [_ async for _ in backend.generate([ask("w1")])]
    assert one._lease is not None
    assert two._lease is not None
    assert one._lease.engine is two._lease.engine
    await one.close()
    assert [outcome async for outcome in two.generate([ask("w2")])]
    await two.close()


@pytest.mark.asyncio
async def test_a_verifier_scores_candidates_and_draws_nothing(verifier: Path) -> None:
    backend = TorchBackend(verifier, "cpu")
    requests = [ScoreRequest((Message("user", "w1"), Message("assistant", f"w{n}"))) for n in range(10)]
    requests.append(ScoreRequest((Message("assistant", "w1 " * 300),)))
    found = {outcome.position: outcome async for outcome in backend.score(requests)}
    for position in range(10):
        outcome = found[position]
        assert isinstance(outcome, Settled)
        [draw] = outcome.draws
        assert draw.score is not None
        assert 0 <= draw.score <= 1
        assert (draw.index, draw.finish_reason, draw.output_tokens, draw.logprob) == (0, "score", 0, None)
    assert isinstance(found[10], Failed)
    with pytest.raises(BackendError, match="verifier"):
        [_ async for _ in backend.generate([ask("w1")])]
    await backend.close()


@pytest.mark.asyncio
async def test_a_score_does_not_depend_on_what_is_judged_with_it(verifier: Path) -> None:
    backend = TorchBackend(verifier, "cpu")
    requests = [ScoreRequest((Message("user", "w1 " * n), Message("assistant", f"w{n}"))) for n in range(1, 30)]
    many = {outcome.position: outcome async for outcome in backend.score(requests)}
    [alone] = [outcome async for outcome in backend.score(requests[6:7])]
    assert isinstance(alone, Settled)
    whole = many[6]
    assert isinstance(whole, Settled)
    assert alone.draws[0].score == pytest.approx(whole.draws[0].score, abs=1e-6)
    await backend.close()
