"""Draws by number instead of by name: prompts, models, origins and texts are kept once each.

The code that packs and hashes is repeated here on purpose: a released revision must go on doing what it did.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
AT_ONCE = 5000
FINISH = {"stop": 0, "length": 1, "score": 2}
ESCAPED = re.compile("\x1a([0-9a-f]{4})")


def upgrade() -> None:
    """Apply."""
    op.add_column("trials", sa.Column("draws", sa.BigInteger(), nullable=True))
    op.rename_table("draws", "draws_0002")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE draws_0002 RENAME CONSTRAINT pk_draws TO pk_draws_0002")
    _create_names()
    _create_prompts()
    _create_texts()
    _create_draws()
    _move_draws(op.get_bind())
    op.drop_table("draws_0002")


def _create_names() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
    )
    op.create_table(
        "models",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", "revision", name="uq_models_name_revision"),
    )
    op.create_table(
        "origins",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_origins"),
        sa.UniqueConstraint("name", name="uq_origins_name"),
    )
    op.create_table(
        "parsers",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_parsers"),
        sa.UniqueConstraint("digest", name="uq_parsers_digest"),
    )


def _create_prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("model_id", ROW_NUMBER, nullable=False),
        sa.Column("parser_id", ROW_NUMBER, nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_prompts_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_prompts"),
        sa.UniqueConstraint("key", name="uq_prompts_key"),
    )


def _create_texts() -> None:
    op.create_table(
        "texts",
        sa.Column("id", ROW_NUMBER, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_texts"),
        sa.UniqueConstraint("digest", name="uq_texts_digest"),
    )
    op.create_table(
        "answers",
        sa.Column("text_id", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("parser_id", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("text_id", "parser_id", name="pk_answers"),
        sqlite_with_rowid=False,
    )


def _create_draws() -> None:
    op.create_table(
        "draws",
        sa.Column("prompt_id", ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text_id", ROW_NUMBER, nullable=True),
        sa.Column("finish", sa.SmallInteger(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        sa.Column("logprob", sa.Float(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("origin_id", ROW_NUMBER, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name="fk_draws_prompt_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("prompt_id", "index", name="pk_draws"),
        sqlite_with_rowid=False,
    )


OLD = sa.table(
    "draws_0002",
    sa.column("prompt_key", sa.String()),
    sa.column("index", sa.Integer()),
    sa.column("model_name", sa.Text()),
    sa.column("model_revision", sa.Text()),
    sa.column("text", sa.Text()),
    sa.column("finish_reason", sa.String()),
    sa.column("prompt_tokens", sa.Integer()),
    sa.column("output_tokens", sa.Integer()),
    sa.column("logprob", sa.Float()),
    sa.column("score", sa.Float()),
    sa.column("origin", sa.String()),
    sa.column("created_at", sa.DateTime(timezone=True)),
)
MODELS = sa.table("models", sa.column("id"), sa.column("name"), sa.column("revision"))
ORIGINS = sa.table("origins", sa.column("id"), sa.column("name"))
PROMPTS = sa.table("prompts", sa.column("id"), sa.column("key", sa.LargeBinary()), sa.column("model_id"))
TEXTS = sa.table(
    "texts",
    sa.column("id"),
    sa.column("digest", sa.LargeBinary()),
    sa.column("length"),
    sa.column("body", sa.LargeBinary()),
)
DRAWS = sa.table(
    "draws",
    *(
        sa.column(name)
        for name in (
            "prompt_id",
            "index",
            "text_id",
            "finish",
            "prompt_tokens",
            "output_tokens",
            "logprob",
            "score",
            "origin_id",
            "created_at",
        )
    ),
)


def _move_draws(connection: sa.Connection) -> None:
    """Every draw, some thousands at a time: the archive may be larger than memory."""
    models = _named(connection, MODELS, [OLD.c.model_name, OLD.c.model_revision])
    origins = _named(connection, ORIGINS, [OLD.c.origin])
    order = sa.select(OLD).order_by(OLD.c.prompt_key, OLD.c["index"]).limit(AT_ONCE)
    last: tuple[Any, ...] | None = None
    while True:
        page = order if last is None else order.where(sa.tuple_(OLD.c.prompt_key, OLD.c["index"]) > sa.tuple_(*last))
        rows = connection.execute(page).all()
        if not rows:
            return
        last = tuple(rows[-1][:2])
        _move(connection, rows, models, origins)


def _named(connection: sa.Connection, table: Any, columns: Sequence[Any]) -> dict[tuple[str, ...], int]:
    """Numbers for the distinct names of the old table."""
    names = [name for name in table.c.keys() if name != "id"]
    for row in connection.execute(sa.select(*columns).distinct().order_by(*columns)).all():
        connection.execute(sa.insert(table).values(**dict(zip(names, row))))
    found = connection.execute(sa.select(table)).all()
    return {tuple(row)[1:]: row[0] for row in found}


def _move(
    connection: sa.Connection,
    rows: Sequence[Any],
    models: Mapping[tuple[str, ...], int],
    origins: Mapping[tuple[str, ...], int],
) -> None:
    keys = {row.prompt_key: _key(row.prompt_key) for row in rows}
    owners = {keys[row.prompt_key]: {"model_id": models[row.model_name, row.model_revision]} for row in rows}
    prompts = _numbers(connection, PROMPTS, "key", owners)
    texts = {row.text: _bytes(row.text) for row in rows if row.text}
    digests = {text: hashlib.blake2b(raw, digest_size=16).digest() for text, raw in texts.items()}
    wanted = {
        digests[text]: {"length": len(raw.decode("utf-8", "surrogatepass")), "body": _packed(raw)}
        for text, raw in texts.items()
    }
    numbers = _numbers(connection, TEXTS, "digest", wanted)
    moved = [
        {
            "prompt_id": prompts[keys[row.prompt_key]],
            "index": row.index,
            "text_id": numbers[digests[row.text]] if row.text else None,
            "finish": FINISH[row.finish_reason],
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_tokens,
            "logprob": row.logprob,
            "score": row.score,
            "origin_id": origins[row.origin,],
            "created_at": _seconds(row.created_at),
        }
        for row in rows
    ]
    connection.execute(sa.insert(DRAWS), moved)


def _numbers(
    connection: sa.Connection, table: Any, name: str, wanted: Mapping[bytes, Mapping[str, Any]]
) -> dict[bytes, int]:
    """The numbers of these rows, those that are missing added first."""
    known = _known(connection, table, name, list(wanted))
    missing = [{name: value, **rest} for value, rest in wanted.items() if value not in known]
    if missing:
        connection.execute(sa.insert(table), missing)
        known.update(_known(connection, table, name, [row[name] for row in missing]))
    return known


def _known(connection: sa.Connection, table: Any, name: str, values: Sequence[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for start in range(0, len(values), 1000):
        query = sa.select(table.c[name], table.c.id).where(table.c[name].in_(values[start : start + 1000]))
        found.update({bytes(value): number for value, number in connection.execute(query)})
    return found


def _key(text: str) -> bytes:
    """The 32 bytes of a key; whatever else an old archive holds is kept under the hash of its name."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    return raw if len(raw) == 32 else hashlib.sha256(text.encode()).digest()


def _bytes(text: str) -> bytes:
    """The text as the model wrote it: the old table escaped what PostgreSQL refuses."""
    if "\x1a" in text:
        text = ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), text)
    return text.encode("utf-8", "surrogatepass")


def _packed(raw: bytes) -> bytes:
    if len(raw) >= 200:
        short = zlib.compress(raw, 6)
        if len(short) < 0.9 * len(raw):
            return b"\x01" + short
    return b"\x00" + raw


def _seconds(moment: datetime) -> int:
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
