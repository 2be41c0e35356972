"""Turns recorded draws of other projects into pools that `ReplayBackend` serves.

    python -m env.backends.replay_import qwen3 --pools POOLS.parquet --questions QUESTIONS.parquet --out DIR

``qwen3`` reads the AIME solutions of Qwen3 models that the authors of AutoTTS (arXiv 2605.08083) published, one row a
solution: benchmark, model, question_id, sample, tokens (of the whole solution), answer (final, or ERR), probe_every,
probes (the answer forced out after each ``probe_every`` tokens), gold. It writes DIR/pool.parquet (stage ``solve``) and
DIR/gold.parquet, where one benchmark is the search split and another the sealed test split.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from env.backends.replay_pool import PoolError, open_pool

STAGE = "solve"
NO_ANSWER = "ERR"

_POOL_SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("model", pa.string()),
        ("example", pa.string()),
        ("upstream", pa.list_(pa.string())),
        ("draw", pa.int64()),
        ("answer", pa.string()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("cut_tokens", pa.list_(pa.int64())),
        ("cut_answers", pa.list_(pa.string())),
    ]
)


def import_qwen3(
    pools: Path, questions: Path, out: Path, search: str = "aime24", test: str = "aime25"
) -> dict[str, int]:
    """Write a pool and its gold table.

    A solution's last probe equals its final answer in every row, so it is taken for the final answer, known only once
    the whole solution is paid for; the probes before it become the cuts. Tokens of the prompts are not in the source
    and are stated as 0 (they are a hundred against some ten thousand of a solution).

    Args:
        pools: the solutions.
        questions: benchmark, question_id, question, gold.
        out: folder to write to; made where missing.
        search: the benchmark whose questions are the search split.
        test: the benchmark whose questions are the sealed test split.

    Returns:
        Numbers of draws, examples and cuts written.

    Raises:
        PoolError: a source is unreadable or lacks a column, or what was written does not check out.
    """
    asked = {"benchmark", "model", "question_id", "sample", "tokens", "answer", "probe_every", "probes"}
    draws = _rows(pools, asked)
    gold = [
        {
            "example": _example(row),
            "answer": row["gold"],
            "question": row["question"],
            "benchmark": row["benchmark"],
            "split": {search: "search", test: "test"}[row["benchmark"]],
        }
        for row in _rows(questions, {"benchmark", "question_id", "question", "gold"})
        if row["benchmark"] in (search, test)
    ]
    if {row["split"] for row in gold} != {"search", "test"}:
        raise PoolError(f"{questions.name}: needs questions of both {search!r} and {test!r}")
    known = {row["example"] for row in gold}
    recorded = [_recorded(row) for row in draws if _example(row) in known]
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(recorded, _POOL_SCHEMA), out / "pool.parquet", compression="zstd")
    pq.write_table(pa.Table.from_pylist(gold), out / "gold.parquet")
    open_pool(out / "pool.parquet")
    return {"draws": len(recorded), "examples": len(gold), "cuts": sum(len(row["cut_tokens"]) for row in recorded)}


def _rows(path: Path, columns: set[str]) -> list[dict[str, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise PoolError(f"{path}: not a readable Parquet file ({error})") from error
    missing = sorted(columns - set(table.column_names))
    if missing:
        raise PoolError(f"{path.name}: no column {', '.join(missing)}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _example(row: dict[str, Any]) -> str:
    return f"{row['benchmark']}-{row['question_id']}"


def _recorded(row: dict[str, Any]) -> dict[str, Any]:
    every, whole = row["probe_every"], row["tokens"]
    cuts = [(every * place, _answer(probe)) for place, probe in enumerate(row["probes"][:-1], 1)]
    cuts = [(tokens, answer) for tokens, answer in cuts if tokens < whole]
    return {
        "stage": STAGE,
        "model": row["model"],
        "example": _example(row),
        "upstream": [],
        "draw": row["sample"],
        "answer": _answer(row["answer"]),
        "tokens_in": 0,
        "tokens_out": whole,
        "cut_tokens": [tokens for tokens, _ in cuts],
        "cut_answers": [answer for _, answer in cuts],
    }


def _answer(text: str) -> str | None:
    return None if text == NO_ANSWER else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; prints what was written as JSON."""
    parser = argparse.ArgumentParser(prog="python -m env.backends.replay_import", description=__doc__.splitlines()[0])
    sources = parser.add_subparsers(dest="source", required=True)
    qwen3 = sources.add_parser("qwen3", help="Qwen3 on AIME, final and probed answers")
    qwen3.add_argument("--pools", type=Path, required=True)
    qwen3.add_argument("--questions", type=Path, required=True)
    qwen3.add_argument("--out", type=Path, required=True)
    qwen3.add_argument("--search", default="aime24", help="benchmark of the search split")
    qwen3.add_argument("--test", default="aime25", help="benchmark of the sealed test split")
    options = parser.parse_args(arguments)
    try:
        written = import_qwen3(options.pools, options.questions, options.out, options.search, options.test)
    except PoolError as error:
        sys.exit(str(error))
    print(json.dumps({"out": str(options.out), **written}))


if __name__ == "__main__":
    main()
