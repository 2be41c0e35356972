"""An exported module, run where this program is not, answers as the plan endpoint does; and a graph of other makers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from openai import OpenAI

from api.demo import demo_spec
from env.allocation import Allocation, StageSetting
from env.embedded import checkpoint_path, ledger_examples
from env.engine.server import create_engine_app
from env.engine.sharing import lease_engine
from tests.api.service import Service
from tests.env.engine.live import running
from tests.planner.export.plans import a_plan

EXAMPLES = ledger_examples("test", 4, 0, "mixed")

ALONE = """
import sys


class _Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("api", "planner", "env", "jinja2"):
            raise ImportError(f"{name} is not to be had here")


sys.meta_path.insert(0, _Nowhere())
import json, plan
for line in sys.stdin:
    fields, seed = json.loads(line)
    print(json.dumps(plan.answer(fields, seed)))
"""


@pytest.fixture(scope="module")
def models() -> Iterator[str]:
    """The embedded models behind the engine's HTTP server."""
    with ExitStack() as stack:
        engines = {}
        for name in ("xs", "s", "verifier"):
            lease = lease_engine(checkpoint_path(name), "cpu")
            stack.callback(lease.release)
            engines[name] = lease.engine
        yield stack.enter_context(running(create_engine_app(engines))) + "/v1"


@pytest.fixture(scope="module")
def plan(service: Service, models: str) -> str:
    """A plan of the demo's pipeline with three different strategies, its models behind a server."""
    spec = demo_spec().model_dump(mode="json")
    for name in ("xs", "s", "verifier"):
        more = {"api": "classify"} if name == "verifier" else {}
        spec["pipeline"]["models"][name] = {
            "backend": "openai",
            "base_url": models,
            "model": name,
            "parameters": 1e5,
            **more,
        }
    allocation = Allocation.of(
        {
            "retrieve": StageSetting("s", "union", 3),
            "read": StageSetting("xs", "vote", 4),
            "solve": StageSetting("s", "best_of_n", 4),
        }
    )
    a_plan(service.runtime.archive, spec, allocation, "exported")
    return "exported"


def test_a_module_alone_answers_as_the_plan_endpoint_does(service: Service, plan: str, tmp_path: Path) -> None:
    module = service.http.get(f"/api/v1/plans/{plan}/export", params={"format": "langgraph"})
    assert module.status_code == 200, module.text
    (tmp_path / "plan.py").write_text(module.text)
    asked = [(dict(example.fields), seed) for example in EXAMPLES for seed in (1, 2)]
    run = subprocess.run(
        [sys.executable, "-c", ALONE],
        input="\n".join(json.dumps(pair) for pair in asked),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": "/usr/bin", "PYTHONPATH": str(tmp_path)},
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    alone = [json.loads(line) for line in run.stdout.splitlines()]
    with OpenAI(base_url=f"{service.url}/v1", api_key="unused") as client:
        served = [
            client.chat.completions.create(
                model=f"plan:{plan}", messages=[{"role": "user", "content": json.dumps(fields)}], seed=seed
            )
            for fields, seed in asked
        ]
    assert alone == [reply.model_extra["apportion"]["answer"] for reply in served]  # type: ignore[index]
    assert len(set(map(str, alone))) > 2


@pytest.mark.parametrize(
    ("format", "media", "begins"),
    [
        ("yaml", "application/yaml", b"version: 1"),
        ("vllm", "application/x-sh", b"#!/bin/sh"),
        ("langgraph", "text/x-python", b'"""Plan exported'),
        ("zip", "application/zip", b"PK"),
    ],
)
def test_every_format_is_served(service: Service, plan: str, format: str, media: str, begins: bytes) -> None:
    answer = service.http.get(f"/api/v1/plans/{plan}/export", params={"format": format})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == media
    assert answer.content.startswith(begins)
    assert "attachment" in answer.headers["content-disposition"]


class State(TypedDict):
    """Of a pipeline that knows nothing of plans."""

    question: str
    expression: str
    result: str


def test_a_graph_of_other_makers_uses_stages_by_changing_url_and_model_alone(
    service: Service, plan: str, models: str
) -> None:
    def graph(base_url: str, read: str, solve: str) -> Any:
        client = OpenAI(base_url=base_url, api_key="unused")

        def ask(model: str, system: str, text: str) -> str:
            messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": text}]
            reply = client.chat.completions.create(model=model, messages=messages, max_tokens=64, temperature=0.7)
            return reply.choices[0].message.content or ""

        builder = StateGraph(State)
        builder.add_node("reading", lambda state: {"expression": ask(read, "read", state["question"])})
        builder.add_node("solving", lambda state: {"result": ask(solve, "solve", state["expression"])})
        for edge in ((START, "reading"), ("reading", "solving"), ("solving", END)):
            builder.add_edge(*edge)
        return builder.compile()

    question = f"{' '.join(EXAMPLES[0].fields['story'])} ask {EXAMPLES[0].fields['person']}"  # type: ignore[arg-type]
    start: Any = {"question": question, "expression": "", "result": ""}
    before = graph(models, "s", "s").invoke(start)
    after = graph(f"{service.url}/v1", f"stage:{plan}/read", f"stage:{plan}/solve").invoke(start)
    # Whole replies as the models write them, so that whatever parsed them before still does.
    for state in (before, after):
        assert state["expression"]
        assert "=" in state["result"]
