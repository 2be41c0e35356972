"""The service's parts: its settings, databases, workers and port."""

from __future__ import annotations

import difflib
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import create_engine, text

from api.doctor.findings import Finding, note, ok, trouble
from api.settings import Settings
from env.errors import ApportionError
from env.fleet.processes import process_exists
from planner.archive import current_revision, head_revision, open_archive, open_engine
from planner.archive.connection import label, parse_url
from planner.archive.totals import LIVE_SECONDS

PREFIX = "APPORTION_"
OTHER_NAMES = frozenset(
    {
        "APPORTION_CONFIG",
        "APPORTION_DATA_ROOT",
        "APPORTION_ENGINE_API_KEY",
        "APPORTION_FLEET",
        "APPORTION_LLM_BASE_URL",
        "APPORTION_LLM_MODEL",
        "APPORTION_LLM_PRICE",
        "APPORTION_TOKEN",
        "APPORTION_URL",
    }
)
"""Variables that are read elsewhere than in `Settings`."""

MOST_SKEW_S = 2.0
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"})


def settings_names(environ: Mapping[str, str]) -> Finding:
    """Variables that look like settings and are none: mostly misspelt."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | OTHER_NAMES
    strange = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    if not strange:
        return ok("settings", f"{sum(name in environ for name in known)} set by environment")
    told = []
    for name in strange:
        near = difflib.get_close_matches(name, sorted(known), 1, 0.7)
        told.append(f"{name}{f' (meant: {near[0]}?)' if near else ''}")
    return note("settings", f"not known and ignored: {', '.join(told)}")


def file_system(settings: Settings) -> Finding:
    """Whether a SQLite archive lies where its locks work."""
    if parse_url(settings.archive_url).get_backend_name() != "sqlite":
        return ok("file system", "not needed: the archive is on a database server")
    kind, mount = mounted(settings.home.resolve(), Path("/proc/self/mounts"))
    if kind in NETWORK_FILE_SYSTEMS:
        return trouble(
            "file system",
            f"the archive would lie on {kind} ({mount}), where SQLite's locks do not hold; set APPORTION_HOME to a "
            f"local disk, or APPORTION_DATABASE_URL to PostgreSQL",
        )
    return ok("file system", kind or "unknown")


def mounted(folder: Path, table: Path) -> tuple[str, str]:
    """Kind and place of the file system that a folder is on; empty where the table cannot be read."""
    try:
        rows = [line.split() for line in table.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return "", ""
    places = {row[1].replace("\\040", " "): row[2] for row in rows if len(row) > 2}
    for place in (folder, *folder.parents):
        if str(place) in places:
            return places[str(place)], str(place)
    return "", ""


def archive(settings: Settings) -> Finding:
    """Whether the archive opens, at which schema, and that others cannot read it."""
    try:
        opened = open_archive(settings.archive_url)
    except ApportionError as error:
        return trouble("archive", str(error))
    with opened:
        told = f"{opened.place}, schema {current_revision(opened.engine)} (newest {head_revision()})"
        url = opened.engine.url
    if url.get_backend_name() == "sqlite":
        file = Path(str(url.database))
        if file.stat().st_mode & 0o004 and file.parent.stat().st_mode & 0o001:
            return note("archive", f"{told}; every user of this machine can read it: chmod o-rwx {file.parent}")
    return ok("archive", told)


def jobs(settings: Settings) -> Finding:
    """Whether the jobs database can be connected to."""
    parsed = parse_url(settings.queue_url)
    if parsed.get_backend_name() == "sqlite":
        there = Path(str(parsed.database)).exists()
        return ok("jobs", f"{parsed.database}{'' if there else ' (made at the first start)'}")
    engine = create_engine(parsed, connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    except Exception as error:
        return trouble("jobs", f"{label(parsed)} cannot be reached: {str(error).splitlines()[0][:200]}")
    finally:
        engine.dispose()
    return ok("jobs", label(parsed))


def clock(settings: Settings) -> Finding:
    """Whether this machine and the database server agree on the time: heartbeats and schedules depend on it."""
    engine = open_engine(settings.archive_url)
    try:
        if engine.dialect.name == "sqlite":
            return ok("clock", "not needed: the archive is on this machine")
        with engine.connect() as connection:
            there: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    finally:
        engine.dispose()
    skew = abs((datetime.now(UTC) - there).total_seconds())
    if skew > MOST_SKEW_S:
        return trouble("clock", f"{skew:.1f} s apart from the database server's; synchronise both (chrony)")
    return ok("clock", f"{skew:.2f} s apart from the database server's")


def workers(settings: Settings) -> Finding:
    """Whether somebody runs what is queued, and workers that died without a word."""
    try:
        with open_archive(settings.archive_url) as opened:
            entered = opened.workers.list()
            queued = len(opened.studies.list(200, status="queued"))
            running = len(opened.studies.list(200, status="running"))
    except ApportionError:
        return note("workers", "unknown while the archive cannot be opened")
    recent, host = datetime.now(UTC) - timedelta(seconds=LIVE_SECONDS), socket.gethostname()
    live = [w for w in entered if w.last_beat >= recent and (w.host != host or process_exists(w.pid))]
    told = f"{len(live)} running; {queued} studies queued, {running} running"
    if not live and (queued or running):
        return note("workers", f"{told}: nobody works on them; start `apportion serve` or `apportion worker`")
    dead = len(entered) - len(live)
    return ok("workers", f"{told}{f'; {dead} died and will be taken over for' if dead else ''}")


def port(settings: Settings) -> Finding:
    """Whether the port is free, or the service is what holds it."""
    if settings.port == 0:
        return ok("port", "any free one")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        return _held(settings, error)
    return ok("port", f"{settings.port} on {settings.host} is free")


def _held(settings: Settings, error: OSError) -> Finding:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        answer = httpx.get(f"http://{host}:{settings.port}/healthz", timeout=2)
        if answer.status_code == 200 and answer.json().get("status") == "ok":
            return ok("port", f"Apportion serves on {settings.port}")
    except (httpx.HTTPError, ValueError, AttributeError):
        pass
    reason = error.strerror or str(error)
    return trouble("port", f"{settings.port} on {settings.host}: {reason}; end what holds it, or set APPORTION_PORT")
