"""Small pools of recorded draws, written as any recorder would write them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Row = Mapping[str, Any]

SHARED = Path(os.environ.get("APPORTION_SHARED_DATA", Path(__file__).parents[3] / ".." / "shared" / "data")).resolve()

needs_qwen3 = pytest.mark.skipif(
    not (SHARED / "qwen3_math" / "qwen3_aime_pools.parquet").is_file(),
    reason="the recorded Qwen3 pools are not here; set APPORTION_SHARED_DATA to the folder that holds qwen3_math",
)


def a_draw(draw: int = 0, answer: str | None = "42", **more: Any) -> dict[str, Any]:
    """A row of a one-stage pool."""
    return {
        "stage": "solve",
        "model": "small",
        "example": "one",
        "upstream": [],
        "draw": draw,
        "answer": answer,
        "tokens_in": 20,
        "tokens_out": 100,
        **more,
    }


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as Parquet."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path
