"""Counts, prunes and compacts the sample bank. By itself, only `Upkeep.drop_texts` runs, at a study's end."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, exists, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from planner.archive.bank import FINISH_CODES, own_bank
from planner.archive.connection import explained, label
from planner.archive.errors import ArchiveError
from planner.archive.referenced import Awaited, Referenced, awaited, referenced
from planner.archive.sessions import Sessions
from planner.archive.tables import AnswerRow, DrawRow, ModelRow, OriginRow, PromptRow, TextRow, table_of
from planner.archive.texts import TextPolicy

PROMPTS_A_STEP = 2000
"""Prompts looked at in one transaction: short enough that studies go on drawing in between."""

Tick = Callable[[int, int], None]
"""Told (prompts done, prompts in all)."""


@dataclass(frozen=True)
class BankStats:
    """What a bank holds, in rows, and in bytes where the database says."""

    draws: int
    prompts: int
    texts: int
    """Distinct texts, dropped ones included."""

    texts_dropped: int
    text_bytes: int
    """Of the texts kept, as stored."""

    answers: int
    models: dict[str, int]
    """Draws by model."""

    text_policy: str
    database_bytes: int


@dataclass(frozen=True)
class Selection:
    """Which draws may go; what is given has to hold together, and something must be given."""

    older_than_days: float | None = None
    model: str | None = None
    study_id: str | None = None
    """Draws that this study was the first to ask for."""

    @property
    def empty(self) -> bool:
        """Whether it would select everything."""
        return self.older_than_days is None and self.model is None and self.study_id is None


@dataclass(frozen=True)
class Pruned:
    """What a pruning removed, or would remove."""

    draws: int = 0
    protected: int = 0
    """Draws that were selected and stay: a plan or an unfinished study refers to them."""

    texts_dropped: int = 0
    """Texts no longer kept, their hashes and lengths still are."""

    texts_removed: int = 0
    """Texts that no draw refers to any more."""


class Upkeep:
    """Upkeep of one archive's bank."""

    def __init__(self, engine: Engine) -> None:
        """Bind to a migrated engine made by `open_engine`."""
        self._engine = engine
        self._sessions = Sessions(engine)

    def stats(self, policy: TextPolicy) -> BankStats:
        """Count what the bank holds.

        Raises:
            ArchiveError: the database failed.
        """
        draws, prompts, texts = table_of(DrawRow), table_of(PromptRow), table_of(TextRow)
        models = table_of(ModelRow)
        by_model = (
            select(models.c.name, models.c.revision, func.count())
            .select_from(draws.join(prompts, prompts.c.id == draws.c.prompt_id).join(models))
            .group_by(models.c.name, models.c.revision)
            .order_by(func.count().desc(), models.c.name)
        )
        bodies = select(func.count(), func.count(texts.c.body), func.coalesce(func.sum(func.length(texts.c.body)), 0))
        with explained(self._engine), self._engine.connect() as connection:
            counted = {f"{name}@{rev[:12]}" if rev else name: n for name, rev, n in connection.execute(by_model)}
            all_texts, kept, size = connection.execute(bodies).one()
            return BankStats(
                sum(counted.values()),
                _count(connection, prompts),
                all_texts,
                all_texts - kept,
                int(size),
                _count(connection, table_of(AnswerRow)),
                counted,
                str(policy),
                _database_bytes(connection),
            )

    def prune(
        self,
        selection: Selection,
        policy: TextPolicy,
        dry_run: bool = True,
        force: bool = False,
        tick: Tick = lambda done, total: None,
    ) -> Pruned:
        """Remove selected draws, and texts that the policy or the draws' absence makes superfluous.

        Args:
            selection: which draws; an empty one removes none, and only texts are looked at.
            policy: which texts may go though their draws stay.
            dry_run: only count. The texts of draws that would go are not counted then.
            force: also draws that plans and unfinished studies refer to, and texts that unfinished studies may read.
            tick: told how far it is.

        Raises:
            ArchiveError: the database failed; what was removed before stays removed.
        """
        result = Pruned()
        if not selection.empty:
            keep = Referenced() if force else referenced(self._sessions)
            result = self._prune_draws(selection, keep, dry_run, tick)
        removed = 0 if dry_run else self._remove_unused()
        dropped = self._drop_texts(policy, dry_run, lambda connection: Awaited() if force else awaited(connection))
        return replace(result, texts_dropped=dropped, texts_removed=removed)

    def drop_texts(self, policy: TextPolicy, ending: str | None = None) -> int:
        """Drop the texts that the policy no longer allows and no unfinished study may read; returns how many.

        Draws, answers and evidence stay, and with them everything that a plan and its report are made of. Doing it
        again drops nothing more.

        Args:
            policy: which texts may go.
            ending: a study that has nothing left to read, though its status may not say so yet.

        Raises:
            ArchiveError: the database failed; no text was dropped.
        """

        def needed(connection: Connection) -> Awaited:
            return awaited(connection, ending)

        # Looking takes no lock; with nothing to do, nobody who writes draws has to wait.
        return self._drop_texts(policy, False, needed) if self._drop_texts(policy, True, needed) else 0

    def compact(self) -> tuple[int, int]:
        """Give the space of removed rows back to the disk; returns the database's bytes before and after.

        Raises:
            ArchiveError: the database failed; SQLite needs as much free disk as the archive takes.
        """
        with explained(self._engine):
            with self._engine.connect() as connection:
                before = _database_bytes(connection)
            with self._engine.connect() as connection:
                if connection.dialect.name == "sqlite":
                    # Past SQLAlchemy, which would begin a transaction: VACUUM refuses to run inside one.
                    with _explained_driver(self._engine):
                        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                            connection.connection.cursor().execute(statement)
                else:
                    alone = connection.execution_options(isolation_level="AUTOCOMMIT")
                    for row in (DrawRow, PromptRow, TextRow, AnswerRow):
                        alone.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {row.__tablename__}")
            with self._engine.connect() as connection:
                return before, _database_bytes(connection)

    def _prune_draws(self, selection: Selection, keep: Referenced, dry_run: bool, tick: Tick) -> Pruned:
        prompts = table_of(PromptRow)
        gone = protected = done = last = 0
        with self._sessions.read() as session:
            total = _count(session.connection(), prompts)
            models = _named(session.connection(), ModelRow, selection.model)
            origins = _named(session.connection(), OriginRow, selection.study_id, within=True)
        if selection.model is not None and not models:
            raise ArchiveError(
                f"the bank has no draws of a model {selection.model!r}; `apportion bank stats` lists them"
            )
        asked = _conditions(selection, origins)
        free = [*asked, *_freedom(keep)]
        page = select(prompts.c.id, prompts.c.key, prompts.c.model_id).order_by(prompts.c.id).limit(PROMPTS_A_STEP)
        while True:
            with self._sessions.read() if dry_run else self._sessions.write() as session:
                connection = session.connection()
                if not dry_run:
                    own_bank(connection)
                rows = connection.execute(page.where(prompts.c.id > last)).all()
                if not rows:
                    return Pruned(gone, protected)
                mine = [row for row in rows if selection.model is None or row.model_id in models]
                open_ = [row.id for row in mine if bytes(row.key) not in keep.prompts]
                going = _matching(connection, open_, free)
                gone += going
                protected += _matching(connection, [row.id for row in mine], asked) - going
                if going and not dry_run:
                    _delete(connection, open_, free)
            last, done = rows[-1].id, done + len(rows)
            tick(done, total)

    def _remove_unused(self) -> int:
        """Remove texts and answers that no draw refers to; returns how many texts."""
        draws, texts, answers = table_of(DrawRow), table_of(TextRow), table_of(AnswerRow)
        used = select(draws.c.text_id).where(draws.c.text_id.is_not(None))
        with self._sessions.write() as session:
            connection = session.connection()
            own_bank(connection)
            connection.execute(delete(answers).where(answers.c.text_id.in_(select(answers.c.text_id).except_(used))))
            return connection.execute(delete(texts).where(texts.c.id.in_(select(texts.c.id).except_(used)))).rowcount

    def _drop_texts(self, policy: TextPolicy, dry_run: bool, needed: Callable[[Connection], Awaited]) -> int:
        """Drop texts whose draws are all old enough, have had their answers kept and are awaited by no study."""
        if policy.least_age is None:
            return 0
        texts = table_of(TextRow)
        youngest = int(time.time() - policy.least_age.total_seconds())
        with self._sessions.read() if dry_run else self._sessions.write() as session:
            connection = session.connection()
            if not dry_run:
                own_bank(connection)
            idle = _idle_texts(youngest, needed(connection))
            if idle is None:
                return 0
            if dry_run:
                return int(connection.execute(select(func.count()).select_from(idle.subquery())).scalar_one())
            return connection.execute(update(texts).where(texts.c.id.in_(idle)).values(body=None)).rowcount


def _idle_texts(youngest: int, needed: Awaited) -> Any:
    """Query of the kept texts that nobody needs; None where all may be needed.

    Args:
        youngest: texts with a draw made after this moment (Unix seconds) stay.
        needed: what unfinished studies may read.
    """
    if needed.models is None:
        return None
    draws, prompts, texts, answers = (table_of(row) for row in (DrawRow, PromptRow, TextRow, AnswerRow))
    d = draws.c
    read = and_(answers.c.text_id == d.text_id, answers.c.parser_id == prompts.c.parser_id)
    why = [answers.c.text_id.is_(None), d.created_at > youngest]
    if needed.models:
        why.append(prompts.c.model_id.in_(sorted(needed.models)))
    if needed.origins:
        why.append(d.origin_id.in_(sorted(needed.origins)))
    used = (
        select(d.text_id)
        .select_from(draws.join(prompts, prompts.c.id == d.prompt_id).outerjoin(answers, read))
        .where(d.text_id.is_not(None), or_(*why))
    )
    return select(texts.c.id).where(texts.c.body.is_not(None)).except_(used)


def _conditions(selection: Selection, origins: frozenset[int]) -> list[ColumnElement[bool]]:
    """What the user asked of a draw, its model aside."""
    d = table_of(DrawRow).c
    found: list[ColumnElement[bool]] = []
    if selection.older_than_days is not None:
        found.append(d.created_at <= int(time.time() - 86400 * selection.older_than_days))
    if selection.study_id is not None:
        found.append(d.origin_id.in_(sorted(origins)))
    return found


def _freedom(keep: Referenced) -> list[ColumnElement[bool]]:
    """What else a draw must be to go, its prompt aside."""
    d = table_of(DrawRow).c
    found: list[ColumnElement[bool]] = []
    if keep.scores:
        found.append(d.finish != FINISH_CODES["score"])
    if keep.origins:
        found.append(d.origin_id.not_in(sorted(keep.origins)))
    return found


def _matching(connection: Connection, prompts: list[int], conditions: list[ColumnElement[bool]]) -> int:
    if not prompts:
        return 0
    draws = table_of(DrawRow)
    query = select(func.count()).select_from(draws).where(draws.c.prompt_id.in_(prompts), *conditions)
    return int(connection.execute(query).scalar_one())


def _delete(connection: Connection, prompts: list[int], conditions: list[ColumnElement[bool]]) -> None:
    """Remove the draws, and prompts that have none left."""
    draws, table = table_of(DrawRow), table_of(PromptRow)
    connection.execute(delete(draws).where(draws.c.prompt_id.in_(prompts), *conditions))
    any_left = exists().where(draws.c.prompt_id == table.c.id)
    connection.execute(delete(table).where(table.c.id.in_(prompts), ~any_left))


def _named(connection: Connection, row: type[Any], name: str | None, within: bool = False) -> frozenset[int]:
    """Numbers of the rows of that name, or of those below it (``name/...``)."""
    if name is None:
        return frozenset()
    table = table_of(row)
    same = table.c.name.startswith(f"{name}/", autoescape=True) if within else table.c.name == name
    return frozenset(connection.execute(select(table.c.id).where(same)).scalars())


def _count(connection: Connection, table: Any) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def _database_bytes(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        pages, size = (
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size")
        )
        return int(pages * size)
    return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


@contextmanager
def _explained_driver(engine: Engine) -> Iterator[None]:
    """Errors of statements that go past SQLAlchemy."""
    try:
        yield
    except sqlite3.Error as error:
        raise ArchiveError(
            f"the archive at {label(engine.url)} cannot be compacted ({error}); it needs as much free disk again, "
            "and no study running meanwhile"
        ) from error
