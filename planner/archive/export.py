"""Writes the bank's draws to a Parquet file, some thousands at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Connection, Engine, and_, func, or_, select

from planner.archive.bank import FINISH_REASONS
from planner.archive.columns import storable
from planner.archive.connection import explained
from planner.archive.errors import ArchiveError
from planner.archive.tables import AnswerRow, DrawRow, ModelRow, OriginRow, ParserRow, PromptRow, TextRow, table_of
from planner.archive.texts import unpacked

DRAWS_A_GROUP = 20_000
"""Draws in memory at once, and in one row group of the file."""

_ANSWER = pa.struct([pa.field("parser", pa.string()), pa.field("answer", pa.string())])

COLUMNS: Sequence[tuple[pa.Field, str]] = (
    (pa.field("prompt_key", pa.string(), nullable=False), "content key of the prompt, 64 hexadecimal digits"),
    (pa.field("index", pa.int32(), nullable=False), "which draw of the prompt, from 0"),
    (pa.field("model", pa.string(), nullable=False), "name the model was asked by"),
    (pa.field("revision", pa.string(), nullable=False), "revision of its weights; empty where none is stated"),
    (pa.field("text", pa.string()), "what the model wrote; null where the text policy dropped it. NUL, SUB and lone "
     "surrogates are written as SUB (0x1A) and four hexadecimal digits"),
    (pa.field("text_digest", pa.string()), "16-byte BLAKE2b of the text in UTF-8, hexadecimal; null for an empty text"),
    (pa.field("text_length", pa.int32(), nullable=False), "characters of the text"),
    (pa.field("answers", pa.list_(_ANSWER), nullable=False), "canonical JSON of what each parser read; null: nothing"),
    (pa.field("finish_reason", pa.string(), nullable=False), "stop, length, or score for a verifier's score"),
    (pa.field("prompt_tokens", pa.int32(), nullable=False), "tokens of the prompt"),
    (pa.field("output_tokens", pa.int32(), nullable=False), "generated tokens, the end token included"),
    (pa.field("logprob", pa.float64()), "sum of the log-probabilities of the generated tokens; null where not given"),
    (pa.field("score", pa.float64()), "a verifier's value in [0, 1]; null for a generation"),
    (pa.field("origin", pa.string(), nullable=False), "study and batch that asked first"),
    (pa.field("created_at", pa.timestamp("s", tz="UTC"), nullable=False), "when it was settled"),
)  # fmt: skip
"""The file's columns and what they hold; the descriptions are in the file's schema too."""

SCHEMA = pa.schema([column.with_metadata({"description": told}) for column, told in COLUMNS])

Tick = Callable[[int, int], None]
"""Told (draws written, draws in all)."""


def export_draws(engine: Engine, target: Path, model: str | None = None, tick: Tick = lambda done, total: None) -> int:
    """Write the draws as Parquet; the file appears when it is whole. Returns how many draws it holds.

    Args:
        engine: of a migrated archive.
        target: the file; one of that name is replaced.
        model: only this model's.
        tick: told after each group.

    Raises:
        ArchiveError: the database failed or the file cannot be written.
    """
    part = target.with_name(target.name + ".part")
    written = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            explained(engine),
            engine.connect() as connection,
            pq.ParquetWriter(part, SCHEMA, compression="zstd") as out,
        ):
            total = _total(connection, model)
            for rows in _pages(connection, model):
                out.write_table(pa.Table.from_pylist(_records(connection, rows), schema=SCHEMA))
                written += len(rows)
                tick(written, total)
        os.replace(part, target)
    except OSError as error:
        raise ArchiveError(f"{target} cannot be written ({error.strerror or error}); name another file") from error
    finally:
        with suppress(OSError):
            part.unlink()
    return written


def _total(connection: Connection, model: str | None) -> int:
    draws, prompts, models = table_of(DrawRow), table_of(PromptRow), table_of(ModelRow)
    query = select(func.count()).select_from(draws)
    if model is not None:
        query = query.join(prompts, prompts.c.id == draws.c.prompt_id).join(models).where(models.c.name == model)
    return int(connection.execute(query).scalar_one())


def _pages(connection: Connection, model: str | None) -> Iterator[Sequence[Any]]:
    """Draws by key, page by page: neither the driver nor we ever hold more than one."""
    draws, prompts, texts = table_of(DrawRow), table_of(PromptRow), table_of(TextRow)
    models, origins = table_of(ModelRow), table_of(OriginRow)
    d = draws.c
    tables = (
        draws.join(prompts, prompts.c.id == d.prompt_id)
        .join(models, models.c.id == prompts.c.model_id)
        .join(origins, origins.c.id == d.origin_id)
        .outerjoin(texts, texts.c.id == d.text_id)
    )
    names = [models.c.name.label("model"), models.c.revision, origins.c.name.label("origin")]
    query = select(draws, prompts.c.key, *names, texts.c.digest, texts.c.length, texts.c.body).select_from(tables)
    if model is not None:
        query = query.where(models.c.name == model)
    query = query.order_by(d.prompt_id, d["index"]).limit(DRAWS_A_GROUP)
    last = (0, -1)
    while True:
        after = or_(d.prompt_id > last[0], and_(d.prompt_id == last[0], d["index"] > last[1]))
        rows = connection.execute(query.where(d.prompt_id >= last[0], after)).all()
        if not rows:
            return
        yield rows
        last = (rows[-1][0], rows[-1][1])


def _records(connection: Connection, rows: Sequence[Any]) -> list[dict[str, Any]]:
    answers = _answers(connection, sorted({row.text_id for row in rows if row.text_id is not None}))
    return [
        {
            "prompt_key": bytes(row.key).hex(),
            "index": row[1],
            "model": row.model,
            "revision": row.revision,
            "text": _text(row),
            "text_digest": bytes(row.digest).hex() if row.text_id is not None else None,
            "text_length": row.length or 0,
            "answers": answers.get(row.text_id, []),
            "finish_reason": FINISH_REASONS[row.finish],
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_tokens,
            "logprob": row.logprob,
            "score": row.score,
            "origin": row.origin,
            "created_at": datetime.fromtimestamp(row.created_at, UTC),
        }
        for row in rows
    ]


def _text(row: Any) -> str | None:
    if row.text_id is None:
        return ""
    return None if row.body is None else storable(unpacked(bytes(row.body)))


def _answers(connection: Connection, texts: Sequence[int]) -> dict[int, list[dict[str, str | None]]]:
    """What was read in these texts, by text and parser."""
    answers, parsers = table_of(AnswerRow), table_of(ParserRow)
    query = select(answers.c.text_id, parsers.c.digest, answers.c.answer).join_from(
        answers, parsers, parsers.c.id == answers.c.parser_id
    )
    found: dict[int, list[dict[str, str | None]]] = {}
    for start in range(0, len(texts), 1000):
        these = query.where(answers.c.text_id.in_(texts[start : start + 1000]))
        rows = connection.execute(these.order_by(answers.c.text_id, parsers.c.id))
        for text_id, group in groupby(rows, key=lambda row: row[0]):
            found[text_id] = [
                {"parser": bytes(p).hex(), "answer": None if a is None else storable(unpacked(bytes(a)))}
                for _, p, a in group
            ]
    return found
