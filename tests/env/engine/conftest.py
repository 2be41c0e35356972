from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from env.engine.engine import Engine
from tests.env.engine.checkpoints import write_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head, tied embeddings: the shape of the smallest embedded model."""
    return write_checkpoint(tmp_path_factory.mktemp("engine") / "tiny")


@pytest.fixture(scope="session")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grouped queries, untied embeddings, unusual rotary base, shards."""
    return write_checkpoint(
        tmp_path_factory.mktemp("engine") / "grouped",
        seed=1,
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=False,
        rms_norm_eps=1e-4,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )


@pytest.fixture(scope="session")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("engine") / "verifier", verifier=True)


@pytest.fixture(scope="session")
def tiny_engine(tiny: Path) -> Iterator[Engine]:
    engine = Engine(tiny, "cpu")
    yield engine
    engine.close()
