"""What an exported plan holds, and what it may not become."""

from __future__ import annotations

import io
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.demo import demo_spec
from env.allocation import Allocation, StageSetting
from planner.archive import Archive, open_archive
from planner.export import NotStandalone, export_files, zipped
from tests.planner.export.plans import a_plan


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def demo(**changes: Any) -> dict[str, Any]:
    return {**demo_spec().model_dump(mode="json"), **changes}


def allocation(last: str = "best_of_n", **knobs: Any) -> Allocation:
    return Allocation.of(
        {
            "retrieve": StageSetting("l", "union", 4),
            "read": StageSetting("m", "vote", 4),
            "solve": StageSetting("s", last, 8, tuple(sorted(knobs.items()))),
        }
    )


def test_a_plan_is_exported_as_document_servers_and_module(archive: Archive) -> None:
    files = export_files(archive, a_plan(archive, demo(), allocation(), "one"))
    assert set(files) == {"plan.yaml", "serve.sh", "plan.py"}
    assert yaml.safe_load(files["plan.yaml"])["allocation"] == allocation().to_json()
    served = [shlex.split(line) for line in files["serve.sh"].splitlines() if line.startswith("vllm serve")]
    assert [words[words.index("--served-model-name") + 1] for words in served] == ["l", "m", "s", "verifier"]
    assert len({words[words.index("--port") + 1] for words in served}) == 4
    assert "pooling" in served[3]
    compile(files["plan.py"], "plan.py", "exec")
    assert "import api" not in files["plan.py"]
    with zipfile.ZipFile(io.BytesIO(zipped(files))) as packed:
        assert {name: packed.read(name).decode() for name in packed.namelist()} == files


def test_knobs_of_a_plan_reach_its_document_and_its_module(archive: Archive) -> None:
    record = a_plan(archive, demo(), allocation("vote", temperature=0.25, documents=3), "knobs")
    files = export_files(archive, record)
    knobs = {"documents": 3, "temperature": 0.25}
    assert yaml.safe_load(files["plan.yaml"])["allocation"]["solve"]["knobs"] == knobs
    assert "'temperature': 0.25" in files["plan.py"]
    assert "v = {**v, **{'documents': 3}}" in files["plan.py"]


def test_a_strategy_that_plain_python_cannot_hold_is_refused_or_asks_the_endpoint(archive: Archive) -> None:
    spec = demo()
    spec["pipeline"]["stages"][2]["strategies"] = ["revise"]
    record = a_plan(archive, spec, allocation("revise"), "two")
    with pytest.raises(NotStandalone, match="stage solve cannot be written as plain Python: the strategy revise"):
        export_files(archive, record)
    module = export_files(archive, record, remote=True)["plan.py"]
    assert 'ask_plan("stage:two/solve"' in module
    assert "def vote" in module


def test_a_template_that_plain_python_cannot_hold_names_its_stage(archive: Archive) -> None:
    spec = demo()
    spec["pipeline"]["stages"][1]["prompt"][1]["template"] = "{{ retrieve | tojson }} {{ person }}"
    record = a_plan(archive, spec, allocation(), "three")
    with pytest.raises(NotStandalone, match="stage read: the user prompt uses the filter tojson"):
        export_files(archive, record)


def test_texts_of_a_spec_become_no_commands(archive: Archive, tmp_path: Path) -> None:
    spec = demo()
    evil = f'x"\n"""\ntouch {tmp_path}/owned\n'
    model = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": evil, "parameters": 1e6}
    spec["pipeline"]["models"]["s"] = model
    spec["pipeline"]["stages"][2]["parser"] = {"kind": "after", "marker": evil}
    spec["pipeline"]["stages"][2]["prompt"] = [{"role": "user", "template": evil + "{{ read }}"}]
    only = Allocation.of({**dict(allocation().settings), "solve": StageSetting("s", "vote", 2)})
    files = export_files(archive, a_plan(archive, spec, only, "four"))
    script = "\n".join(line for line in files["serve.sh"].splitlines() if not line.startswith("vllm"))
    subprocess.run(["sh", "-c", script], timeout=10, check=False)
    compile(files["plan.py"], "plan.py", "exec")
    assert not (tmp_path / "owned").exists()
