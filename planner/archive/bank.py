"""The sample bank in SQL: draws that outlive the process and serve every study."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from sqlalchemy import Connection, Engine, bindparam, select, text, update

from env.backends._base import Draw, FinishReason, ModelIdentity
from env.bank._base import ParserKey, PromptKey
from env.calls import Call
from planner.archive.connection import explained
from planner.archive.errors import ArchiveError
from planner.archive.numbering import insert_tuples, number_of, numbers_of
from planner.archive.sessions import Sessions
from planner.archive.tables import (
    AnswerRow,
    DrawRow,
    ModelRow,
    OriginRow,
    ParserRow,
    PromptRow,
    SettingRow,
    TextRow,
    table_of,
)
from planner.archive.texts import TextPolicy, packed, text_bytes, text_digest, unpacked

_KEYS_A_STATEMENT = 1000

FINISH_CODES: Mapping[FinishReason, int] = {"stop": 0, "length": 1, "score": 2}
"""How a finish reason is stored; codes are never given to another reason."""

FINISH_REASONS: Mapping[int, FinishReason] = {code: reason for reason, code in FINISH_CODES.items()}

assert FINISH_CODES.keys() == set(get_args(FinishReason)), "a finish reason has no code"

BANK_LOCK = 0x42414E4B
"""PostgreSQL advisory lock: writers of draws share it, whatever removes rows has it alone (SQLite has one writer)."""

_POLICY = "text_policy"

_DRAW_COLUMNS = (
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


_SCORED = f"d.finish = {FINISH_CODES['score']:d}"
_ASKED_BY = text(
    f"""
    SELECT m.name, m.revision, a.scored, count(*), sum(a.prompt), sum(a.draws), sum(a.output)
    FROM (
        SELECT d.prompt_id, {_SCORED} AS scored, count(*) AS draws, max(d.prompt_tokens) AS prompt,
               sum(d.output_tokens) AS output
        FROM draws d JOIN origins o ON o.id = d.origin_id
        WHERE o.name = :origin
        GROUP BY d.prompt_id, {_SCORED}
    ) a JOIN prompts p ON p.id = a.prompt_id JOIN models m ON m.id = p.model_id
    GROUP BY m.name, m.revision, a.scored
    """
)


class SqlSampleBank:
    """Keeps draws in an archive's database; see `env.bank.AnswerBank` for the contract.

    Core statements rather than rows as objects: a batch reads and writes thousands of draws.
    """

    def __init__(self, engine: Engine) -> None:
        """Bind to a migrated engine made by `open_engine`."""
        self._engine = engine
        self._sessions = Sessions(engine)

    def held(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, tuple[Draw, ...]]:
        """See `SampleBank.held`.

        Raises:
            ArchiveError: the database failed.
        """
        found: dict[PromptKey, tuple[Draw, ...]] = {}
        bodies: dict[int | None, tuple[str, bool]] = {}
        with explained(self._engine), self._engine.connect() as connection:
            for chunk in _chunks(keys):
                names = _origins(connection, chunk)
                gathered: dict[bytes, list[Draw]] = {}
                rows = connection.execute(_HELD, {"keys": chunk})
                for key, origin_id, text_id, body, index, finish, prompt, output, logprob, score in rows:
                    if text_id not in bodies:
                        bodies[text_id] = _content(text_id, body)
                    written, dropped = bodies[text_id]
                    reason, origin = FINISH_REASONS[finish], names[origin_id]
                    draw = Draw(index, written, reason, prompt, output, logprob, score, origin, dropped)
                    gathered.setdefault(key, []).append(draw)
                found.update({bytes(key).hex(): tuple(draws) for key, draws in gathered.items()})
        return found

    def settle(self, model: ModelIdentity, draws: Mapping[PromptKey, Sequence[Draw]]) -> int:
        """See `SampleBank.settle`.

        Raises:
            ArchiveError: the database failed; none of the draws was stored.
        """
        wanted: dict[tuple[bytes, int], Draw] = {}
        for key in sorted(draws):
            for draw in draws[key]:
                wanted.setdefault((_key_bytes(key), draw.index), draw)
        if not wanted:
            return 0
        with self._sessions.write() as session:
            connection = session.connection()
            share_bank(connection)
            model_id = number_of(connection, ModelRow, {"name": model.name, "revision": model.revision})
            keys = {key: {"model_id": model_id} for key, _ in wanted}
            prompts = numbers_of(connection, PromptRow, "key", keys)
            # A draw that is held already must leave no text behind that nothing refers to.
            for held in _present(connection, keys):
                wanted.pop(held, None)
            return insert_tuples(connection, DrawRow, _DRAW_COLUMNS, _draw_rows(connection, wanted, prompts))

    def asked_by(self, origin: str) -> list[tuple[ModelIdentity, bool, Call]]:
        """What one batch newly asked of each model and stored: (model as it draws, whether scores, call).

        Prompts are counted once, and in full where a prefix cache held part of them. Reads all draws of the bank: for
        a batch that was cut off, not for every one.

        Raises:
            ArchiveError: the database failed.
        """
        with explained(self._engine), self._engine.connect() as connection:
            rows = connection.execute(_ASKED_BY, {"origin": origin}).all()
        return [
            (ModelIdentity(name, revision), bool(scored), call)
            for name, revision, scored, *sizes in rows
            for call in _calls(name, bool(scored), *(int(size) for size in sizes))
        ]

    def answers(self, parser: ParserKey, keys: Sequence[PromptKey]) -> Mapping[PromptKey, Mapping[int, str | None]]:
        """See `AnswerBank.answers`.

        Raises:
            ArchiveError: the database failed.
        """
        found: dict[PromptKey, dict[int, str | None]] = {}
        with explained(self._engine), self._engine.connect() as connection:
            for chunk in _chunks(keys):
                for key, index, body in connection.execute(_ANSWERS, {"keys": chunk, "parser": bytes.fromhex(parser)}):
                    answer = None if body is None else unpacked(bytes(body))
                    found.setdefault(bytes(key).hex(), {})[index] = answer
        return found

    def models_of(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, ModelIdentity]:
        """Who drew each prompt's draws; keys without draws are absent.

        Raises:
            ArchiveError: the database failed.
        """
        prompts, models = table_of(PromptRow), table_of(ModelRow)
        query = select(prompts.c.key, models.c.name, models.c.revision).select_from(prompts.join(models))
        found: dict[PromptKey, ModelIdentity] = {}
        with explained(self._engine), self._engine.connect() as connection:
            for chunk in _chunks(keys):
                for key, name, revision in connection.execute(query.where(prompts.c.key.in_(chunk))):
                    found[bytes(key).hex()] = ModelIdentity(name, revision)
        return found

    def models(self) -> list[ModelIdentity]:
        """Every model whose draws or scores the bank holds, by name.

        Raises:
            ArchiveError: the database failed.
        """
        models = table_of(ModelRow)
        query = select(models.c.name, models.c.revision).order_by(models.c.name, models.c.revision)
        with explained(self._engine), self._engine.connect() as connection:
            return [ModelIdentity(name, revision) for name, revision in connection.execute(query)]

    def keep_answers(
        self,
        parser: ParserKey,
        answers: Mapping[PromptKey, Mapping[int, str | None]],
        texts_needed: bool = False,
    ) -> None:
        """See `AnswerBank.keep_answers`.

        Raises:
            ArchiveError: the database failed; none of the answers was kept.
        """
        unread = [] if texts_needed else self._unread([key for key, known in answers.items() if not known])
        wanted = [*unread, *(key for key, known in answers.items() if known)]
        if not wanted:
            return
        with self._sessions.write() as session:
            connection = session.connection()
            share_bank(connection)
            parser_id = number_of(connection, ParserRow, {"digest": bytes.fromhex(parser)})
            read: dict[int, bytes | None] = {}
            prompts: set[int] = set()
            for chunk in _chunks(wanted):
                for key, prompt_id, index, text_id in connection.execute(_TEXTS, {"keys": chunk}):
                    known = answers[bytes(key).hex()]
                    prompts.add(prompt_id)
                    if text_id is not None and index in known:
                        answer = known[index]
                        read.setdefault(text_id, None if answer is None else packed(text_bytes(answer)))
            rows = [(text_id, parser_id, read[text_id]) for text_id in sorted(read)]
            insert_tuples(connection, AnswerRow, ["text_id", "parser_id", "answer"], rows)
            if prompts and not texts_needed:
                connection.execute(_SET_PARSER, [{"prompt": p, "parser": parser_id} for p in sorted(prompts)])

    def _unread(self, keys: Sequence[PromptKey]) -> list[PromptKey]:
        """Those of the prompts that nobody has read with texts no longer needed; mostly none, so no lock is taken."""
        prompts = table_of(PromptRow).c
        found: list[PromptKey] = []
        with explained(self._engine), self._engine.connect() as connection:
            for chunk in _chunks(keys):
                query = select(prompts.key).where(prompts.key.in_(chunk), prompts.parser_id.is_(None))
                found += [bytes(key).hex() for key in connection.execute(query).scalars()]
        return found

    @property
    def text_policy(self) -> TextPolicy:
        """How long texts are kept; ``full`` where nobody has said otherwise."""
        with self._sessions.read() as session:
            row = session.get(SettingRow, _POLICY)
            return TextPolicy.parse(row.value if row else "full")

    def set_text_policy(self, policy: TextPolicy) -> None:
        """Store the archive's policy; texts that it no longer allows go when the next study ends, or at a pruning.

        Raises:
            ArchiveError: the database failed.
        """
        with self._sessions.write() as session:
            session.merge(SettingRow(name=_POLICY, value=str(policy)))


def share_bank(connection: Connection) -> None:
    """Keep rows from being removed until this transaction ends; writers do not wait for each other."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": BANK_LOCK})


def own_bank(connection: Connection) -> None:
    """Wait until nobody writes draws, and keep it so until this transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": BANK_LOCK})


def _statements() -> tuple[Any, ...]:
    prompts, draws, texts = table_of(PromptRow), table_of(DrawRow), table_of(TextRow)
    origins, answers, parsers = table_of(OriginRow), table_of(AnswerRow), table_of(ParserRow)
    d, these = draws.c, prompts.c.key.in_(bindparam("keys", expanding=True))
    whole = prompts.join(draws, d.prompt_id == prompts.c.id)
    columns = [d[n] for n in ("index", "finish", "prompt_tokens", "output_tokens", "logprob", "score")]
    held = (
        select(prompts.c.key, d.origin_id, d.text_id, texts.c.body, *columns)
        .select_from(whole.outerjoin(texts, texts.c.id == d.text_id))
        .where(these)
        .order_by(d.prompt_id, d["index"])
    )
    asked = select(d.origin_id).select_from(whole).where(these)
    origin_names = select(origins.c.id, origins.c.name).where(origins.c.id.in_(asked))
    kept = (
        select(prompts.c.key, d["index"], answers.c.answer)
        .select_from(whole.join(answers, answers.c.text_id == d.text_id))
        .join(parsers, parsers.c.id == answers.c.parser_id)
        .where(these, parsers.c.digest == bindparam("parser"))
    )
    texts_of = select(prompts.c.key, d.prompt_id, d["index"], d.text_id).select_from(whole).where(these)
    indices = select(prompts.c.key, d["index"]).select_from(whole).where(these)
    read = update(prompts).where(prompts.c.id == bindparam("prompt"), prompts.c.parser_id.is_(None))
    return held, origin_names, kept, texts_of, indices, read.values(parser_id=bindparam("parser"))


_HELD, _ORIGINS, _ANSWERS, _TEXTS, _INDICES, _SET_PARSER = _statements()


def _chunks(keys: Sequence[PromptKey]) -> Iterable[list[bytes]]:
    wanted = [_key_bytes(key) for key in dict.fromkeys(keys)]
    for start in range(0, len(wanted), _KEYS_A_STATEMENT):
        yield wanted[start : start + _KEYS_A_STATEMENT]


def _key_bytes(key: PromptKey) -> bytes:
    try:
        raw = bytes.fromhex(key)
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise ArchiveError(f"{key!r} is no prompt key; make it with env.bank.draw_key (64 hexadecimal digits)")
    return raw


def _present(connection: Connection, keys: Iterable[bytes]) -> Iterable[tuple[bytes, int]]:
    wanted = list(keys)
    for start in range(0, len(wanted), _KEYS_A_STATEMENT):
        for key, index in connection.execute(_INDICES, {"keys": wanted[start : start + _KEYS_A_STATEMENT]}).all():
            yield bytes(key), index


def _draw_rows(
    connection: Connection, wanted: Mapping[tuple[bytes, int], Draw], prompts: Mapping[bytes, int]
) -> list[tuple[Any, ...]]:
    """Rows for the draws, by key; their texts and origins are stored first."""
    raw = {draw.text: text_bytes(draw.text) for draw in wanted.values() if draw.text}
    digests = {written: text_digest(content) for written, content in raw.items()}
    rows = {digests[written]: {"length": len(written), "body": packed(content)} for written, content in raw.items()}
    texts = numbers_of(connection, TextRow, "digest", rows, refill="body")
    origins = {
        name: number_of(connection, OriginRow, {"name": name}) for name in sorted({d.origin for d in wanted.values()})
    }
    now = int(time.time())
    return sorted(
        (
            prompts[key],
            index,
            texts[digests[draw.text]] if draw.text else None,
            FINISH_CODES[draw.finish_reason],
            draw.prompt_tokens,
            draw.output_tokens,
            draw.logprob,
            draw.score,
            origins[draw.origin],
            now,
        )
        for (key, index), draw in wanted.items()
    )


def _content(text_id: int | None, body: bytes | None) -> tuple[str, bool]:
    """A text as a draw has it, and whether it was dropped."""
    if text_id is None:
        return "", False
    return ("", True) if body is None else (unpacked(body), False)


def _origins(connection: Connection, keys: list[bytes]) -> dict[int, str]:
    """Names of the batches that asked for the draws of these prompts: few for thousands of draws."""
    return {row.id: row.name for row in connection.execute(_ORIGINS, {"keys": keys})}


def _calls(model: str, scored: bool, prompts: int, prompt: int, draws: int, output: int) -> tuple[Call, ...]:
    """Prompts with the same number of draws each, as near as whole numbers allow, so that the totals are exact."""
    mean = prompt / prompts
    if scored:
        return (Call(model, mean, output / prompts, 1 if output else 0, prompts),)
    few, more = divmod(draws, prompts)
    parts = ((few, prompts - more), (few + 1, more))
    return tuple(Call(model, mean, output / draws, samples, count) for samples, count in parts if count)
