"""Brings an archive's schema to the revision this code knows, safely from several processes at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from planner.archive.connection import WRITE_OPTION, explained, label
from planner.archive.errors import ArchiveError

VERSION_TABLE = "archive_revision"
"""Where the schema's revision is kept; a name of our own, as a PostgreSQL database may be shared."""

_ADVISORY_KEY = 0x4150504F5254
"""Any constant will do; two migrations of one database take the same one."""

_ONE_THREAD = threading.Lock()
"""Alembic keeps the running environment in a global."""


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrade the schema in one transaction, under a lock; nothing happens where it is there already.

    Args:
        engine: made by `open_engine`.
        revision: a revision to stop at; the newest by default.

    Raises:
        ArchiveError: the archive is newer than this code, or the database failed; nothing was changed then.
    """
    if revision == "head" and current_revision(engine) == head_revision():
        return
    with _ONE_THREAD, _locked(engine) as connection:
        _refuse_newer(engine, _revision_of(connection))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def current_revision(engine: Engine) -> str | None:
    """The schema's revision; None for an empty database.

    Raises:
        ArchiveError: the database failed.
    """
    with explained(engine), engine.connect() as connection:
        return _revision_of(connection)


def head_revision() -> str:
    """The revision this code is written for."""
    return str(_scripts().get_current_head())


def knows_revision(revision: str) -> bool:
    """Whether this code can upgrade from a revision, or is at it."""
    return revision in {script.revision for script in _scripts().walk_revisions()}


def require_head(engine: Engine) -> None:
    """Check that the schema is the one this code knows, changing nothing.

    Raises:
        ArchiveError: it is older, newer or missing; the message says what to do.
    """
    current = current_revision(engine)
    _refuse_newer(engine, current)
    if current != head_revision():
        found = f"is at revision {current}" if current else "has not been set up"
        raise ArchiveError(f"the archive at {label(engine.url)} {found}; migrate it to {head_revision()} first")


def _refuse_newer(engine: Engine, current: str | None) -> None:
    if current is not None and not knows_revision(current):
        raise ArchiveError(
            f"the archive at {label(engine.url)} is at revision {current}, which this version does not know; "
            f"upgrade apportion"
        )


@contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """A connection of its own, in a transaction that no other migration shares."""
    with explained(engine), engine.connect().execution_options(**{WRITE_OPTION: True}) as connection:
        connection.detach()
        if engine.dialect.name == "sqlite":
            # A batch operation drops and renames tables; with foreign keys on, that would delete what refers to them.
            # The setting cannot change inside a transaction, hence past SQLAlchemy, which would begin one.
            connection.connection.cursor().execute("PRAGMA foreign_keys = OFF")
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_KEY})
            yield connection
            if engine.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise ArchiveError(f"migrating {label(engine.url)} would orphan rows; nothing was changed")


def _revision_of(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("file_template", "revision_%%(rev)s_%%(slug)s")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
