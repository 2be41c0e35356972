"""A real service over HTTP on tiny random checkpoints, and the studies it is given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from api.access.policy import AccessPolicy
from api.app import create_app
from api.serve import bound_socket
from planner.durable import Runtime
from tests.env.engine.checkpoints import write_checkpoint

PATIENCE_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    runtime: Runtime
    http: httpx.Client
    app: FastAPI


@contextmanager
def running_service(home: Path) -> Iterator[Service]:
    """A runtime with its worker, served on a free port."""
    with (
        Runtime(f"sqlite:///{home / 'archive.db'}", f"sqlite:///{home / 'jobs.db'}") as runtime,
        served(runtime) as service,
    ):
        yield service


@contextmanager
def served(runtime: Runtime, access: AccessPolicy | None = None) -> Iterator[Service]:
    """The application over a launched runtime, on a free port."""
    with served_app(runtime, create_app(runtime, access=access)) as service:
        yield service


@contextmanager
def served_app(runtime: Runtime, app: FastAPI) -> Iterator[Service]:
    """An application of a launched runtime, on a free port."""
    with bound_socket("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with httpx.Client(base_url=url, timeout=20) as http:
            until(lambda: server.started)
            yield Service(url, runtime, http, app)
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def service_with_models(data: Path, home: Path) -> Iterator[Service]:
    """A service whose data root holds two tiny checkpoints."""
    write_models(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPORTION_DATA_ROOT", str(data))
        with running_service(home) as running:
            yield running


def write_models(root: Path) -> None:
    """Two checkpoints of different size below a data root."""
    write_checkpoint(root / "tiny", seed=1)
    write_checkpoint(root / "small", seed=2, num_hidden_layers=4)


def tiny_spec(**changes: Any) -> dict[str, Any]:
    """A study of two stages that ends within seconds."""
    return {
        "name": "tiny",
        "description": "Two stages on random checkpoints.",
        "pipeline": {
            "name": "tiny",
            "models": {name: {"backend": "torch", "checkpoint": name} for name in ("tiny", "small")},
            "stages": [_stage("find", "{{ question }}"), _stage("solve", "{{ find }} {{ question }}")],
        },
        "data": {
            "source": "inline",
            "rows": [{"id": f"e{i}", "question": f"w{i} w{i + 1}", "answer": "w"} for i in range(20)],
            "search": 10,
            "test": 10,
        },
        "budget": {"plan": {"limit": 1.2e7, "unit": "flops"}, "search": {"trials": 8}},
        "proposer": {"kind": "insight", "batch": 2},
        **changes,
    }


def long_spec() -> dict[str, Any]:
    """A study that takes far longer than a test waits."""
    rows = [{"id": f"e{i}", "question": f"w{i % 90} w{i // 90}", "answer": "w1"} for i in range(1500)]
    spec = tiny_spec(name="long", data={"source": "inline", "rows": rows, "search": 1400, "test": 100})
    spec["budget"] = {"plan": {"limit": 1e10, "unit": "flops"}, "search": {"trials": 60}}
    for stage in spec["pipeline"]["stages"]:
        stage["samples"] = {"min": 8, "max": 32}
        stage["max_tokens"] = 64
    return spec


def _stage(name: str, template: str) -> dict[str, Any]:
    return {
        "name": name,
        "prompt": [{"role": "user", "template": template}],
        # About half of the draws hold such a word; the others cannot be parsed, so that more samples score better.
        "parser": {"kind": "regex", "pattern": r"\b(w)[1-3]\d"},
        "models": ["tiny", "small"],
        "strategies": ["vote"],
        "samples": {"min": 1, "max": 4, "choices": [1, 2, 4]},
        "tokens": {"prompt": 8, "output": 8},
        "max_tokens": 2,
    }


def submit(service: Service, spec: Mapping[str, Any]) -> str:
    """Queue a study; its id."""
    answer = service.http.post("/api/v1/studies", json=dict(spec))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ended(service: Service, study_id: str) -> dict[str, Any]:
    """The study once it has ended."""

    def look() -> dict[str, Any] | None:
        study: dict[str, Any] = service.http.get(f"/api/v1/studies/{study_id}").json()
        return study if study["status"] in ("done", "failed", "cancelled") else None

    return until(look)


def until(look: Callable[[], T | None], patience: float = PATIENCE_S) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing after {patience:g} s")
