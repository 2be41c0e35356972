"""A secret of the environment stays there, whoever echoes it: logs, problems, pages, the archive."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from api.observing.logs import configure_logs
from api.problems import problem_of
from env.secrets import redact, without_password
from env.spec import StudySpec
from planner.archive import ArchiveError
from tests.api.service import Service, ended, submit, tiny_spec
from tests.planner.archive.test_secrets_stay_out import PASSWORD, SECRET, dump


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", SECRET)
    monkeypatch.setenv("SOME_DATABASE_URL", f"postgresql://planner:{PASSWORD}@db/x")


def hidden(shown: str) -> bool:
    parts = ("4f9a", PASSWORD)
    return not any(part in shown for part in parts)


@pytest.mark.parametrize("way", [str, repr, json.dumps])
def test_a_secret_is_found_however_it_is_written(way: Any) -> None:
    assert hidden(redact(f"failed with {way(SECRET)} and {PASSWORD}"))


def test_what_only_looks_like_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "short disabled 12345678 /etc/k3y-file n0t-secret-at-all"
    for name, value in zip(("A_TOKEN", "B_KEY", "C_SECRET", "D_KEY", "PLAIN"), told.split(), strict=True):
        monkeypatch.setenv(name, value)
    assert redact(told) == told


def test_access_tokens_are_known_by_their_form() -> None:
    assert redact("Bearer apt_0123456789ab_" + "x" * 43 + "!") == "Bearer [secret]!"


def test_urls_lose_their_password() -> None:
    assert without_password("postgresql://a:b%40c@h/d") == "postgresql://a:[secret]@h/d"


@pytest.mark.parametrize("format", ["text", "json"])
def test_logs(format: Any) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    try:
        configure_logs(format, "info", stream)
        logging.getLogger("x").warning("sent %s", SECRET)
        try:
            raise RuntimeError(SECRET)
        except RuntimeError:
            logging.getLogger("x").exception("failed")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert hidden(stream.getvalue())
    assert "RuntimeError" in stream.getvalue()


def test_problems() -> None:
    problem = problem_of(ArchiveError(f"cannot reach {SECRET}"))
    assert hidden(problem.model_dump_json())


class Echo(BaseHTTPRequestHandler):
    """Refuses everything and repeats what it was sent."""

    def do_POST(self) -> None:
        body = f'{{"error": {{"message": {json.dumps("bad key " + str(self.headers))}}}}}'.encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_a_failing_call_that_echoes_its_key(service: Service, echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHO_API_KEY", "sk-echoed-4f9a-0123456789")
    spec = tiny_spec(name="echoed")
    model = {"backend": "openai", "base_url": echo, "model": "m", "parameters": 1e5, "api_key_env": "ECHO_API_KEY"}
    spec["pipeline"]["models"] = {"tiny": {**model, "max_retries": 0}, "small": {**model, "max_retries": 0}}
    stream = io.StringIO()
    watcher = logging.StreamHandler(stream)
    logging.getLogger().addHandler(watcher)
    try:
        study = ended(service, submit(service, spec))
    finally:
        logging.getLogger().removeHandler(watcher)
    url = f"/studies/{study['id']}"
    shown = [
        json.dumps(study),
        service.http.get(f"/api/v1{url}/trials").text,
        service.http.get(f"/api/v1{url}/trials/0").text,
        service.http.get(url, headers={"accept": "text/html"}).text,
        service.http.get(f"{url}/trials/0", headers={"accept": "text/html"}).text,
        stream.getvalue(),
        dump(service.runtime.archive),
    ]
    assert "bad key" in shown[6], "the echo was kept, without the key"
    for place in shown:
        assert hidden(place)


def test_pages_hide_what_slipped_into_the_archive_before(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_API_KEY")
    spec = StudySpec.model_validate(tiny_spec(name="slipped")).model_dump(mode="json")
    study = service.runtime.archive.studies.create("slipped", "slipped", spec, seed=0)
    service.runtime.archive.studies.set_status(study.id, "running")
    service.runtime.archive.studies.set_status(study.id, "failed", f"the server said {SECRET}")
    monkeypatch.setenv("ACME_API_KEY", SECRET)
    page = service.http.get(f"/studies/{study.id}", headers={"accept": "text/html"})
    assert "the server said [secret]" in page.text
    assert hidden(page.text)
