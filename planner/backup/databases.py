"""Copies one database out and in: SQLite by its own backup call, PostgreSQL by pg_dump and pg_restore."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import URL

from env.errors import ApportionError
from planner.archive.connection import label, parse_url

COPY_PAGES = 4096
"""Pages copied at a time; writers get their turn in between."""


class BackupError(ApportionError):
    """A backup cannot be made, read or restored."""


def is_sqlite(url: str) -> bool:
    """Whether a URL names a SQLite file."""
    return parse_url(url).get_backend_name() == "sqlite"


def sqlite_file(url: str) -> Path:
    """The file behind a SQLite URL."""
    return Path(str(parse_url(url).database)).absolute()


def copy_out(url: str, target: Path, schema: str | None = None) -> None:
    """Copy a database as it is at one moment, while others go on using it.

    Args:
        url: of the database.
        target: file to write: a SQLite file, or an archive of pg_dump's own format.
        schema: on PostgreSQL only this schema; all by default.

    Raises:
        BackupError: it cannot be read, the copy is not sound, or pg_dump is missing or failed.
    """
    if is_sqlite(url):
        _copy_sqlite(sqlite_file(url), target)
        return
    parsed = parse_url(url)
    command = ["pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
    _run([*command, *([f"--schema={schema}"] if schema else [])], parsed)


def copy_in(source: Path, url: str, force: bool) -> Path | None:
    """Put a copy in a database's place.

    Args:
        source: made by `copy_out` of the same kind of database.
        url: of the database.
        force: also where it holds something already. A SQLite file is moved aside; what a PostgreSQL database holds
            under the names of the copy is replaced in one transaction.

    Returns:
        Where the SQLite file that was there lies now; None where there was none.

    Raises:
        BackupError: something is there already, or the copying failed; nothing was changed then.
    """
    if not is_sqlite(url):
        clean = ["--clean", "--if-exists"] if force else []
        command = ["pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", *clean]
        parsed = parse_url(url)
        _run([*command, f"--dbname={_database(parsed)}", str(source)], parsed)
        return None
    target = sqlite_file(url)
    if target.exists() and not force:
        raise BackupError(f"{target} exists; move it away, or restore with --force, which moves it aside")
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming = target.with_name(f"{target.name}.incoming")
    try:
        shutil.copyfile(source, incoming)
        aside = _move_aside(target)
        os.replace(incoming, target)
    except OSError as error:
        raise BackupError(f"cannot restore to {target}: {error.strerror or error}; nothing was lost") from error
    finally:
        incoming.unlink(missing_ok=True)
    return aside


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.exists():
        raise BackupError(f"there is no database at {source}; name the home folder with --home")
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=30)) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            # One read transaction: a copy that lets writers in between pages would begin anew with each write.
            there.backup(here)
            here.execute("PRAGMA journal_mode = DELETE")
            found = here.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupError(f"cannot copy {source}: {error}; check that the disk of {target.parent} has room") from error
    if found != "ok":
        raise BackupError(f"the copy of {source} is not sound ({found}); the database itself may be damaged")


def _move_aside(target: Path) -> Path | None:
    """Move a SQLite file with its write-ahead log out of the way."""
    if not target.exists():
        return None
    aside = target.with_name(f"{target.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for suffix in ("-wal", "-shm"):
        beside = target.with_name(target.name + suffix)
        if beside.exists():
            os.replace(beside, aside.with_name(aside.name + suffix))
    os.replace(target, aside)
    return aside


def _run(command: list[str], url: URL) -> None:
    if shutil.which(command[0]) is None:
        raise BackupError(f"{command[0]} is not installed; install PostgreSQL's client programs (postgresql-client)")
    environ = {**os.environ, **_connection(url)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        reason = lines[0] if lines else f"exit code {done.returncode}"
        raise BackupError(f"{command[0]} of {label(url)} failed: {reason}")


def _connection(url: URL) -> dict[str, str]:
    """By environment, so that no password shows in the list of processes."""
    given = {
        "PGHOST": url.host,
        "PGPORT": url.port,
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": _database(url),
        "PGCONNECT_TIMEOUT": "10",
    }
    return {name: str(value) for name, value in given.items() if value}


def _database(url: URL) -> str:
    return url.database or "postgres"
