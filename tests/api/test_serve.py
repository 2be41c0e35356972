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
from openai import OpenAI

from api.serve import bound_socket
from env.allocation import Allocation, StageSetting
from planner.archive import open_archive
from tests.api.service import long_spec, tiny_spec, until, write_models
from tests.planner.export.plans import a_plan

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
def process_home(tmp_path: Path) -> Path:
    """A home whose archive holds a plan under a name."""
    home = tmp_path / "home"
    home.mkdir()
    allocation = Allocation.of({"find": StageSetting("tiny", "vote", 2), "solve": StageSetting("small", "vote", 1)})
    with open_archive(f"sqlite:///{home / 'archive.db'}") as archive:
        a_plan(archive, tiny_spec(), allocation, "kept-study")
        archive.promotions.promote("kept", "kept-study")
    return home


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


def test_a_served_process_answers_by_its_plan_and_ends_in_order(
    process_home: Path, process: subprocess.Popen[str]
) -> None:
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found
    with OpenAI(base_url=f"{found.group()}/v1", api_key="unused", max_retries=0) as client:
        reply = client.chat.completions.create(model="plan:kept", messages=[{"role": "user", "content": "w1 w2"}])
        assert [s["draws"] for s in reply.model_extra["apportion"]["stages"]] == [2, 1]  # type: ignore[index]
        stage = client.chat.completions.create(
            model="stage:kept/find", messages=[{"role": "user", "content": "w1"}], stream=True
        )
        assert list(stage)[-1].choices[0].finish_reason
        # A stream is under way while the process is told to end.
        begun = client.chat.completions.create(
            model="plan:kept", messages=[{"role": "user", "content": "w3"}], stream=True
        )
        next(begun)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output
