"""The doctor finds each usual trouble and says what to do."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from api.doctor import Finding, examine, machine, models, service
from api.doctor.examination import _looked
from api.settings import Settings
from planner.archive import open_archive
from tests.api.service import Service
from tests.postgres import PostgresServer, postgres, postgres_url

__all__ = ["postgres", "postgres_url"]


def settings(home: Path, **changes: object) -> Settings:
    return Settings(home=home, port=0, **changes)


def test_a_new_home_has_no_trouble(tmp_path: Path) -> None:
    found = examine(settings(tmp_path / "home"), {})
    assert [f for f in found if f.level == "trouble"] == []
    assert len({f.subject for f in found}) == len(found)


def test_a_misspelt_setting_is_named_with_what_was_meant() -> None:
    found = service.settings_names({"APPORTION_DATABSE_URL": "x", "APPORTION_HOME": "y", "APPORTION_LLM_MODEL": "m"})
    assert found.level == "note"
    assert "APPORTION_DATABSE_URL (meant: APPORTION_DATABASE_URL?)" in found.message
    assert "APPORTION_LLM_MODEL" not in found.message


def test_an_archive_on_a_network_file_system_is_trouble(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text("/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/with\\040space nfs4 rw 0 0\n")
    assert service.mounted(Path("/mnt/with space/home"), table) == ("nfs4", "/mnt/with space")
    assert service.mounted(Path("/mnt/other"), table) == ("ext4", "/")
    assert "nfs4" in service.NETWORK_FILE_SYSTEMS


def test_queued_studies_without_a_worker_are_noted(tmp_path: Path) -> None:
    at = settings(tmp_path)
    with open_archive(at.archive_url) as archive:
        archive.studies.create("s", "s", {}, 0)
        assert "nobody works on them" in service.workers(at).message
        archive.workers.beat("w", socket.gethostname(), os.getpid())
        assert service.workers(at).level == "ok"
        # A worker of this host whose process is gone does not count, however fresh its beat.
        archive.workers.beat("w", socket.gethostname(), 2**22 - 1)
        assert service.workers(at).level == "note"


def test_a_database_that_is_down_is_trouble(tmp_path: Path) -> None:
    at = settings(tmp_path, database_url="postgresql://nobody:hunter2@127.0.0.1:9/none")
    found = {f.subject: f for f in examine(at, {})}
    assert found["archive"].level == found["jobs"].level == found["clock"].level == "trouble"
    assert "hunter2" not in " ".join(f.message for f in found.values())


def test_the_clock_of_a_database_server_is_compared(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database() as url:
        found = service.clock(settings(tmp_path, database_url=url))
    assert found.level == "ok"
    assert "apart" in found.message


def test_a_port_that_something_else_holds_is_trouble(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        at = Settings(home=tmp_path, port=held.getsockname()[1])
        assert service.port(at).level == "trouble"


def test_a_port_that_the_service_holds_is_well(service_url: str, tmp_path: Path) -> None:
    at = Settings(home=tmp_path, port=int(service_url.rpartition(":")[2]))
    assert service.port(at).message.startswith("Apportion serves")


@pytest.fixture
def service_url(service: Service) -> str:
    return service.url


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc").exists(), reason="needs a folder that refuses writes")
def test_a_home_that_cannot_be_written_is_trouble() -> None:
    assert machine.disk(Path("/proc/self/home")).level == "trouble"


def test_an_archive_that_everybody_can_read_is_noted(tmp_path: Path) -> None:
    at = settings(tmp_path / "home")
    assert service.archive(at).level == "ok"
    (tmp_path / "home").chmod(0o755)
    (tmp_path / "home" / "archive.db").chmod(0o644)
    assert "chmod o-rwx" in service.archive(at).message


@contextmanager
def llm(status: int, body: object) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "level", "says"),
    [
        (200, {"data": [{"id": "good"}]}, "ok", "answers"),
        (200, {"data": [{"id": "other"}]}, "trouble", "the server has other"),
        (401, {"error": "no"}, "trouble", "refuses the key"),
        (404, {}, "note", "lists no models"),
    ],
)
def test_the_agents_llm_is_asked_for_its_models(status: int, body: object, level: str, says: str) -> None:
    with llm(status, body) as url:
        found = models.llm(
            {"APPORTION_LLM_MODEL": "good", "APPORTION_LLM_BASE_URL": url, "OPENAI_API_KEY": "sk-hidden"}
        )
    assert found.level == level
    assert says in found.message
    assert "sk-hidden" not in found.message


def test_an_llm_that_is_down_is_trouble() -> None:
    found = models.llm({"APPORTION_LLM_MODEL": "m", "APPORTION_LLM_BASE_URL": "http://127.0.0.1:9/v1"})
    assert (found.level, "does not answer" in found.message) == ("trouble", True)


def test_a_vllm_that_fails_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "vllm"
    fake.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(models.sys, "executable", str(tmp_path / "python"))
    assert "libcudart" in models.vllm().message


def test_a_look_that_fails_is_a_finding_itself() -> None:
    def look() -> Finding:
        raise RuntimeError("unforeseen")

    assert _looked("x", look) == Finding("trouble", "x", "could not be looked at: RuntimeError: unforeseen")
