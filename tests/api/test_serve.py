"""The service as a process of its own: it starts, says where, and ends in order."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.serve import bound_socket
from tests.api.service import long_spec, tiny_spec, until, write_models

START = (
    "from api.serve import serve; from api.settings import Settings; from pathlib import Path; import sys\n"
    "serve(Settings(home=Path(sys.argv[1]), host='127.0.0.1', port=0))"
)


def with_server(base_url: str) -> dict[str, Any]:
    """A spec whose model is on a server."""
    spec = tiny_spec()
    spec["pipeline"]["models"]["tiny"] = {"backend": "openai", "base_url": base_url, "model": "m", "parameters": 1e9}
    return spec


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    write_models(tmp_path)
    environ = {**os.environ, "APPORTION_DATA_ROOT": str(tmp_path)}
    command = [sys.executable, "-c", START, str(tmp_path / "home")]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        yield started
        started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_the_service_in_order_while_a_study_runs(
    process: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line + process.stdout.read()
    with httpx.Client(base_url=found.group(), timeout=20) as http:
        refused = http.post("/api/v1/spec/check", json=with_server("http://10.0.0.1:8000/v1")).json()["faults"]
        assert [fault["path"] for fault in refused] == ["pipeline.models.tiny.base_url"], "what others send is confined"
        study = http.post("/api/v1/studies", json=long_spec()).json()["id"]
        until(lambda: http.get(f"/api/v1/studies/{study}").json()["phase"] == "execute")
        with http.stream("GET", f"/api/v1/studies/{study}/events") as stream:
            assert next(stream.iter_lines())
            process.send_signal(number)
            output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_answers_are_sent_without_waiting_for_acknowledgements_of_what_went_before() -> None:
    with bound_socket("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
