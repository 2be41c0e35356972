"""One file that holds a service: a tar with a manifest, the databases and the data sets."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Literal

from planner.archive import head_revision, open_archive
from planner.archive.connection import label, open_engine, parse_url
from planner.archive.migration import current_revision, knows_revision
from planner.backup.databases import BackupError, copy_in, copy_out, is_sqlite, sqlite_file

FORMAT = 1
MANIFEST = "manifest.json"
LIVE_SECONDS = 30.0
"""A worker that was heard of within this time still writes."""


@dataclass(frozen=True)
class Place:
    """Where a service keeps what it has."""

    archive_url: str
    jobs_url: str
    data: Path | None = None
    """Folder of the data sets it was given; None to leave them out."""


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself."""

    format: int
    created_at: str
    """UTC, ISO 8601."""

    schema: str
    """Revision of the archive."""

    kind: Literal["sqlite", "postgresql"]
    jobs: bool
    """Whether the jobs lie in a file of their own; on PostgreSQL they are part of the same dump."""

    data_files: int
    sha256: Mapping[str, str]
    """Of every file, by its name in the backup."""


def back_up(place: Place, target: Path) -> Manifest:
    """Write a backup of a service that may be running.

    The jobs are copied before the archive: a step that the archive holds and the jobs do not is simply run again, as
    steps are idempotent, whereas the other way round its result would be missing.

    Args:
        place: what to copy.
        target: file to write; it appears only once it is complete.

    Raises:
        BackupError: it exists already, or a part cannot be copied; nothing is left behind.
        ArchiveError: the archive cannot be opened.
    """
    if target.exists():
        raise BackupError(f"{target} exists; name a new file")
    engine = open_engine(place.archive_url)
    try:
        schema = current_revision(engine)
    finally:
        engine.dispose()
    if schema is None:
        raise BackupError(f"there is no archive at {label(parse_url(place.archive_url))}; name the home with --home")
    kind: Literal["sqlite", "postgresql"] = "sqlite" if is_sqlite(place.archive_url) else "postgresql"
    apart = _jobs_apart(place)
    with _work_folder(target.parent) as folder:
        files: dict[str, Path] = {}
        if apart:
            files["jobs"] = folder / "jobs"
            copy_out(place.jobs_url, files["jobs"])
        files["archive"] = folder / "archive"
        copy_out(place.archive_url, files["archive"])
        data = dict(_data_files(place.data))
        files.update(data)
        sums = {name: _sha256(file) for name, file in files.items()}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = Manifest(FORMAT, now, schema, kind, apart, len(data), sums)
        written = folder / "backup.tar"
        (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2), encoding="utf-8")
        try:
            with tarfile.open(written, "w") as tar:
                tar.add(folder / MANIFEST, MANIFEST)
                for name, file in files.items():
                    tar.add(file, name, recursive=False)
            os.chmod(written, 0o600)  # it holds everything that studies saw
            os.replace(written, target)
        except OSError as error:
            raise BackupError(f"cannot write {target}: {error.strerror or error}") from error
    return manifest


def read_manifest(source: Path) -> Manifest:
    """What a backup says of itself.

    Raises:
        BackupError: it is no backup, or one that this version does not know.
    """
    try:
        with tarfile.open(source) as tar:
            member = tar.extractfile(MANIFEST)
            raw = json.loads(member.read() if member else b"")
        manifest = Manifest(**raw)
    except FileNotFoundError as error:
        raise BackupError(f"there is no file {source}") from error
    except (tarfile.TarError, KeyError, ValueError, TypeError, OSError) as error:
        raise BackupError(f"{source} is no backup of this program: {error}") from error
    if manifest.format != FORMAT:
        raise BackupError(f"{source} has format {manifest.format}; this version reads format {FORMAT}")
    return manifest


def restore(source: Path, place: Place, force: bool = False) -> tuple[Manifest, list[Path]]:
    """Put a backup in a service's place; the service and its workers must not run.

    Everything is unpacked and checked before anything is changed.

    Args:
        source: made by `back_up` of the same kind of database.
        place: where to put it.
        force: also where something is there already: SQLite files are moved aside, a PostgreSQL database's tables
            replaced.

    Returns:
        The manifest, and the files that were moved aside.

    Raises:
        BackupError: a worker still runs, the backup is damaged, of another kind of database or newer than this
            version, or something is there already; nothing was changed then.
    """
    manifest = read_manifest(source)
    kind = "sqlite" if is_sqlite(place.archive_url) else "postgresql"
    if manifest.kind != kind:
        raise BackupError(f"the backup is of {manifest.kind}, and the archive here is {kind}; they do not mix")
    if not knows_revision(manifest.schema):
        raise BackupError(
            f"the backup is at schema {manifest.schema}, which this version does not know (newest: {head_revision()}); "
            f"upgrade apportion"
        )
    _refuse_running(place)
    with _work_folder(None) as folder:
        _unpack(source, manifest, folder)
        pairs = [("archive", place.archive_url), *([("jobs", place.jobs_url)] if manifest.jobs else [])]
        if not force:
            for _, url in pairs:
                if is_sqlite(url) and sqlite_file(url).exists():
                    raise BackupError(f"{sqlite_file(url)} exists; restore with --force, which moves it aside")
        aside = [moved for name, url in pairs if (moved := copy_in(folder / name, url, force)) is not None]
        if place.data is not None:
            _put_data(folder / "data", place.data)
    return manifest, aside


def _jobs_apart(place: Place) -> bool:
    archive, jobs = parse_url(place.archive_url), parse_url(place.jobs_url)
    same = (archive.host, archive.port, archive.database) == (jobs.host, jobs.port, jobs.database)
    if same:
        return False
    return not is_sqlite(place.jobs_url) or sqlite_file(place.jobs_url).exists()


def _refuse_running(place: Place) -> None:
    if is_sqlite(place.archive_url) and not sqlite_file(place.archive_url).exists():
        return
    engine = open_engine(place.archive_url)
    try:
        present = current_revision(engine)
    finally:
        engine.dispose()
    if present is None or not knows_revision(present):
        return
    with open_archive(place.archive_url) as archive:
        latest = datetime.now(UTC) - timedelta(seconds=LIVE_SECONDS)
        live = [w.executor_id for w in archive.workers.list() if w.last_beat >= latest]
    if live:
        raise BackupError(
            f"{len(live)} worker(s) still run on this archive ({', '.join(live[:3])}); stop them and wait "
            f"{LIVE_SECONDS:g} s"
        )


def _data_files(data: Path | None) -> Iterator[tuple[str, Path]]:
    if data is None or not data.is_dir():
        return
    for file in sorted(data.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield str(PurePosixPath("data", *file.relative_to(data).parts)), file


def _unpack(source: Path, manifest: Manifest, folder: Path) -> None:
    try:
        with tarfile.open(source) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise BackupError(f"{source} cannot be unpacked: {error}; nothing was changed") from error
    for name, expected in manifest.sha256.items():
        file = folder / name
        if not file.is_file() or _sha256(file) != expected:
            raise BackupError(f"{source} is damaged: {name} is not what was written; nothing was changed")


def _put_data(source: Path, target: Path) -> None:
    """Copy data sets to their folder; files that are there already and differ are replaced."""
    if not source.is_dir():
        return
    for file in sorted(source.rglob("*")):
        if file.is_file():
            to = target / file.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            incoming = to.with_name(f"{to.name}.incoming")
            incoming.write_bytes(file.read_bytes())
            os.replace(incoming, to)


@contextmanager
def _work_folder(beside: Path | None) -> Iterator[Path]:
    try:
        if beside is not None:
            beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".apportion-backup-", dir=beside) as folder:
            yield Path(folder)
    except OSError as error:
        raise BackupError(f"cannot work in {beside or tempfile.gettempdir()}: {error.strerror or error}") from error


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
