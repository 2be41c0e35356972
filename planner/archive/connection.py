"""Opens the database behind an archive, SQLite or PostgreSQL, with settings that suit many processes."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from env.secrets import redact, redactor
from planner.archive.errors import ArchiveError, ArchiveUnavailable

BUSY_TIMEOUT_S = 30.0
"""How long a SQLite statement waits for another process's write."""

CACHE_KIB = 32 * 1024
"""Pages a SQLite connection keeps in memory, at most."""

CHECKPOINT_PAGES = 4000
"""Length of the write-ahead log at which SQLite moves it into the file: 16 MB at 4 KiB a page."""

KEPT_CONNECTIONS = 12
"""SQLite connections that stay open: more are closed after each use, and a new one starts with an empty cache."""

MORE_CONNECTIONS = 36
"""Opened beside those where more threads read at once; one thread more than all of them waits."""

CONNECT_TIMEOUT_S = 10
"""How long PostgreSQL may take to answer a new connection."""

WRITE_OPTION = "archive_write"
"""Execution option of connections whose transactions write: SQLite takes its write lock at the start."""

_ACCEPTED = "use sqlite:////path/to/archive.db or postgresql://user:password@host:5432/database"
_ENCODER = json.JSONEncoder(allow_nan=False)
_DISK_FULL_SQLSTATE = "53100"
_PASSING_WORDS = ("disk is full", "disk i/o error", "database is locked")
_PASSING_CLASSES = ("08", "53", "57")
"""SQLSTATE classes of PostgreSQL: connections, resources, shutdown."""

_PASSING_STATES = ("25P03", "40001", "40P01")
"""An idle transaction ended, a serialisation failure, a deadlock."""


def open_engine(url: str) -> Engine:
    """Engine for an archive.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://...`` or ``postgres://...``.

    Raises:
        ArchiveError: the URL is none of these, or the folder of a SQLite file cannot be created. Nothing is connected
            to yet; an unreachable server shows at the first use.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(
            parsed,
            json_serializer=_json_text,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "fallback_application_name": "apportion"},
        )
        event.listen(engine, "before_cursor_execute", _without_secrets, retval=True)
        return engine
    _prepare_folder(parsed)
    engine = create_engine(
        parsed,
        json_serializer=_json_text,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S},
        pool_size=KEPT_CONNECTIONS,
        max_overflow=MORE_CONNECTIONS,
        # The one used last has the most of the file in its cache.
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "before_cursor_execute", _without_secrets, retval=True)
    return engine


def parse_url(url: str) -> URL:
    """The URL with its driver spelled out.

    Raises:
        ArchiveError: not a database the archive supports. The message does not repeat the URL, which may hold a
            password.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise ArchiveError(f"the archive's URL cannot be read; {_ACCEPTED}") from None
    kind = parsed.drivername.partition("+")[0]
    if kind in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise ArchiveError(f"the archive cannot live in {kind!r}; {_ACCEPTED}")
    if parsed.database in (None, "", ":memory:"):
        raise ArchiveError("the archive needs a file, as several processes share it; use sqlite:////path/to/archive.db")
    if str(parsed.database).startswith("file:"):
        raise ArchiveError(f"the archive takes a plain path, not a file: URI; {_ACCEPTED}")
    return parsed.set(drivername="sqlite+pysqlite")


def label(url: URL) -> str:
    """Where an archive lives, for people: never a user name, password or query."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{url.host or 'local socket'}{port}/{url.database or ''}"


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turn a driver's errors inside the block into `ArchiveError` with what to do next."""
    try:
        yield
    except exc.DBAPIError as error:
        kind = ArchiveUnavailable if _passes(engine.url, error) else ArchiveError
        raise kind(_explanation(engine.url, error)) from error
    except exc.TimeoutError as error:
        raise ArchiveUnavailable(
            f"all connections to the archive at {label(engine.url)} are in use; try again"
        ) from error
    except exc.StatementError as error:
        if isinstance(error.orig, ArchiveError):
            raise error.orig from error
        raise ArchiveError(f"the archive cannot store this: {error.orig or error.args[0]}") from error
    except UnicodeError as error:
        raise ArchiveError(f"the archive cannot store this text: {error}") from error


def _passes(url: URL, error: exc.DBAPIError) -> bool:
    """Whether the same statement may succeed later: a server away, a full disk, a lock that others hold."""
    if url.get_backend_name() == "sqlite":
        low = str(error.orig).lower()
        return isinstance(error, exc.OperationalError) and any(words in low for words in _PASSING_WORDS)
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or (state is None and isinstance(error, exc.OperationalError)):
        return True
    return str(state)[:2] in _PASSING_CLASSES or state in _PASSING_STATES


def _explanation(url: URL, error: exc.DBAPIError) -> str:
    """What a driver's error means and what to do about it, without the password."""
    place = label(url)
    detail = str(error.orig).strip().partition("\n")[0]
    if url.password:
        detail = detail.replace(str(url.password), "***")
    low, state = detail.lower(), getattr(error.orig, "sqlstate", None)
    if state == _DISK_FULL_SQLSTATE or "disk is full" in low:
        return f"the disk of the archive at {place} is full; free space and run again, nothing half-written was kept"
    if "disk i/o error" in low:
        return f"the archive at {place} cannot be written or read ({detail}); look at its disk and the process's limits"
    if state in _PASSING_STATES:
        return f"the archive at {place} broke off a write that others waited for ({detail}); run again"
    if "readonly database" in low:
        return f"the archive at {place} is read-only for this user; give write permission to the file and its folder"
    if "unable to open database file" in low:
        return f"the archive at {place} cannot be opened; check that the folder exists and is writable"
    if "not a database" in low or "malformed" in low:
        return f"the file {place} is not a sound archive ({detail}); restore it from a copy or name another file"
    if "database is locked" in low:
        return f"the archive at {place} stayed locked for {BUSY_TIMEOUT_S:g} s; find the process that writes it"
    if "no such table" in low or state == "42P01":
        return f"the archive at {place} has not been set up; migrate it first"
    if isinstance(error, exc.OperationalError) and url.get_backend_name() == "postgresql":
        return f"the archive at {place} cannot be reached: {detail}; check that the server runs and the URL is right"
    if isinstance(error, exc.IntegrityError):
        return f"the archive at {place} refuses this row: {detail}"
    return f"the archive at {place} failed: {detail}"


def _json_text(value: object) -> str:
    """JSON in the strict sense, which both databases take: NaN and infinities have no place in it."""
    try:
        return redact(_ENCODER.encode(value))
    except (TypeError, ValueError) as error:
        raise ArchiveError(f"the archive cannot store this as JSON: {error}") from error


def _without_secrets(
    connection: Connection, cursor: object, statement: str, parameters: Any, context: object, executemany: bool
) -> tuple[str, Any]:
    """Nothing that is stored holds a secret of this process's environment, whoever echoed it."""
    if not parameters or statement.startswith("SELECT"):
        return statement, parameters
    clean = redactor()

    def cleaned(value: Any) -> Any:
        return clean(value) if isinstance(value, str) else value

    def row(values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: cleaned(value) for name, value in values.items()}
        return tuple(cleaned(value) for value in values)

    if isinstance(parameters, list):
        return statement, [row(values) for values in parameters]
    return statement, row(parameters)


def _prepare_folder(url: URL) -> None:
    folder = Path(str(url.database)).absolute().parent
    try:
        # What studies saw is nobody else's business; a folder that is there already keeps its permissions.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ArchiveError(
            f"the archive's folder {folder} cannot be created ({error.strerror}); name a writable one"
        ) from error


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:
    """Settings of every SQLite connection; transactions are begun by `_begin_sqlite`, not by the driver."""
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    # The bank's look-ups by hash touch pages all over the file; the 2 MB that SQLite keeps by default are too few.
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    # A checkpoint copies each changed page once, however often it changed: fewer of them write less.
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL; SQLite does not wait here by itself when two processes do so at once."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once where the transaction writes: upgrading a read lock later can fail at once."""
    options: Any = connection.get_execution_options()
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(WRITE_OPTION) else "BEGIN")
