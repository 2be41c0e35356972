"""The backends that every suite of this folder is run on: in process, over HTTP, and on recorded draws."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from env.backends import Backend, OpenAIBackend, TorchBackend
from env.backends.openai_dialect import Dialect
from env.backends.replay_pool import RecordedPool, open_pool
from env.engine import create_engine_app
from env.engine.sharing import lease_engine
from tests.conformance.backends import Addressed
from tests.env.backends.pools import a_draw, write_rows
from tests.env.engine.checkpoints import write_checkpoint
from tests.env.engine.live import running


@pytest.fixture(scope="package")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="package")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "judge", verifier=True)


@pytest.fixture(scope="package")
def served(checkpoint: Path, verifier: Path) -> Iterator[str]:
    lease, judging = lease_engine(checkpoint, "cpu"), lease_engine(verifier, "cpu")
    with running(create_engine_app({"tiny": lease.engine, "judge": judging.engine})) as url:
        yield url + "/v1"
    lease.release()
    judging.release()


@pytest.fixture(scope="package")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> RecordedPool:
    """Draws of every prompt the suite asks of all backends: 14 tokens each, probed after every second one."""
    texts = [f"w{a} w{b}" for a in range(30) for b in range(30)] + [f"w{n} ; w7" for n in range(12)]
    texts += [f"w{n}" for n in range(64)]
    rows = [
        a_draw(
            draw,
            f"{text.replace(' ', '_')}:{draw}" + " and so on" * 2,
            stage="any",
            model="tiny",
            example=text,
            tokens_out=14,
            cut_tokens=list(range(2, 14, 2)),
            cut_answers=[f"{text.replace(' ', '_')}:{draw}:{tokens}" for tokens in range(2, 14, 2)],
        )
        for text in texts
        for draw in range(16)
    ]
    return open_pool(write_rows(tmp_path_factory.mktemp("pools") / "tiny.parquet", rows))


@pytest_asyncio.fixture(params=["torch", "openai", "replay"])
async def backend(request: pytest.FixtureRequest, checkpoint: Path) -> AsyncIterator[Backend]:
    opened: Backend
    if request.param == "torch":
        opened = TorchBackend(checkpoint, "cpu")
    elif request.param == "openai":
        opened = OpenAIBackend(request.getfixturevalue("served"), "tiny")
    else:
        opened = Addressed(request.getfixturevalue("recorded"))
    yield opened
    await opened.close()


@pytest_asyncio.fixture(params=["torch", "openai"])
async def judge(request: pytest.FixtureRequest, verifier: Path, served: str) -> AsyncIterator[Backend]:
    remote = OpenAIBackend(served, "judge", dialect=Dialect(api="classify"))
    opened: Backend = TorchBackend(verifier, "cpu", name="judge") if request.param == "torch" else remote
    yield opened
    await opened.close()
