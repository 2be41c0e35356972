"""A throw-away PostgreSQL server for the tests: real, on a free loopback port, gone with the test run.

Import `postgres` and `postgres_url` in a `conftest.py`. However many do, one server is started.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

_START_S = 60.0
_ATTEMPTS = 5
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
}


@dataclass
class PostgresServer:
    """A running server; every test takes a database of its own from it."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """URL of a new, empty database; dropped at the end, whoever is still connected."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} {self._copying}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())

    @functools.cached_property
    def _copying(self) -> str:
        """Files are copied four times as fast as pages are logged, the default since version 15."""
        with psycopg.connect(self.url()) as connection:
            return "STRATEGY file_copy" if connection.info.server_version >= 150000 else ""

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)  # nothing in it is worth a checkpoint
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> PostgresServer:
    """The server; it runs until the process ends. The test is skipped where PostgreSQL is not installed."""
    return _server()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """URL of an empty database of this test's own."""
    with postgres.database() as url:
        yield url


@functools.cache
def _server() -> PostgresServer:
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (no initdb on PATH or under /usr/lib/postgresql)")
    owner = _owner()
    folder = Path(tempfile.mkdtemp(prefix="apportion-postgres-"))
    try:
        if "user" in owner:
            shutil.chown(folder, owner["user"], owner["group"])
        data = folder / "data"
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        initdb = [str(binaries / "initdb"), "-D", str(data), *options]
        made = subprocess.run(initdb, capture_output=True, text=True, cwd=folder, **owner)
        assert made.returncode == 0, made.stderr
        return _started(binaries, folder, data, owner)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _binaries() -> Path | None:
    """The folder of the newest PostgreSQL here; Debian keeps it off the PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(
        Path("/usr/lib/postgresql").glob("[0-9]*/bin"), key=lambda bin: float(bin.parent.name), reverse=True
    )
    return next((bin for bin in found if (bin / "initdb").exists() and (bin / "postgres").exists()), None)


def _owner() -> dict[str, Any]:
    """Whom to run as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL does not run as root and there is no user postgres or nobody")


def _started(binaries: Path, folder: Path, data: Path, owner: dict[str, Any]) -> PostgresServer:
    """The server on a free port; tried again should somebody take the port in between."""
    for _ in range(_ATTEMPTS):
        port = _free_port()
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": port}.items()]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *settings],
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                **owner,
            )
        server = PostgresServer(folder, port, process)
        if _answers(server):
            atexit.register(server.stop)
            return server
    raise AssertionError((folder / "log").read_text())


def _answers(server: PostgresServer) -> bool:
    """Wait until the server takes connections; False where it ended instead."""
    deadline = time.monotonic() + _START_S
    while server.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(psycopg.OperationalError):
            server.execute("SELECT 1")
            return True
        time.sleep(0.05)
    server.process.kill()
    server.process.wait()
    return False


def _end_with_parent() -> None:
    """Leave no server behind when the test run itself is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
