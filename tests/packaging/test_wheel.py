"""What a wheel must hold: installed without the repository around it, everything is there."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True, cwd=out)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


@pytest.mark.parametrize(
    "pattern",
    [
        "env/embedded/weights/xs/model.safetensors",
        "env/embedded/weights/l/tokenizer.json",
        "env/embedded/weights/verifier/config.json",
        "api/demo/ledger.yaml",
        "api/pages/templates/study.html",
        "planner/plans/templates/report.html.j2",
        "planner/archive/migrations/script.py.mako",
        "planner/archive/migrations/versions/revision_0001_initial.py",
        "env/py.typed",
        "planner/py.typed",
        "api/py.typed",
    ],
)
def test_the_wheel_holds(names: set[str], pattern: str) -> None:
    assert pattern in names


def test_the_wheel_holds_the_agents_prompts_and_nothing_of_the_tests(names: set[str]) -> None:
    assert any(n.startswith("planner/proposers/agent/prompts/") and n.endswith(".j2") for n in names)
    assert not any(n.startswith(("tests/", "benchmarks/", "examples/")) for n in names)
