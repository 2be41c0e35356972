"""The fleet commands as a user types them, on the repository's own engine server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from api.command import app
from env.costs import PlanCost
from env.fleet.load import load_fleet
from env.fleet.processes import ProcessMark, group_members
from env.spec import SpecError
from env.spec.load import validated_spec
from tests.api.command.test_commands import small_study
from tests.env.fleet.fleets import REPOSITORY, light_fleet, room_for, torch_fleet

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process trees are read from /proc"),
]


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


def fleet(*words: str | Path, env: dict[str, str] | None = None) -> Answer:
    """A command in this process, which saves seconds of imports; what it starts are processes of their own."""
    result = CliRunner().invoke(app, ["fleet", *map(str, words)], env={"COLUMNS": "200", **(env or {})})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def _environment() -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("APPORTION_")}
    return {**plain, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}


def written(folder: Path, *models: str, light: bool = True, **changes: Any) -> Path:
    file = (light_fleet if light else torch_fleet)(folder, *models, **changes)
    file.path.write_text(yaml.safe_dump(file.spec.model_dump(mode="json")))
    return file.path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A fleet file whose servers are stopped at the end, whatever happened."""
    path = written(tmp_path, "xs", "s")
    yield path
    fleet("down", path)


def status(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet("status", path, "--json").stdout)
    return found


def test_plan_shows_memory_commands_and_the_fewest_swaps(tmp_path: Path) -> None:
    path = written(tmp_path, "xs", "s", "m", **room_for(2))
    words = ["--batch", "xs,s", "--batch", "m", "--batch", "s"]
    found = json.loads(fleet("plan", path, *words, "--json").stdout)
    assert found["schedule"]["loads"] == 3
    assert found["schedule"]["exact"]
    assert found["schedule"]["steps"][1]["drop"] == ["xs"]
    assert sorted(map(sorted, found["together"])) == [["m", "s"], ["m", "xs"], ["s", "xs"]]
    assert [model["claim"] for model in found["models"]] == ["1.00 GiB"] * 3
    assert all(f"--served-model-name {model['model']} " in model["command"] for model in found["models"])
    shown = fleet("plan", path, *words)
    assert shown.returncode == 0, shown.stderr
    assert "Swaps: 3 loads" in shown.stdout
    assert not (tmp_path / "state").exists(), "nothing was started"


def test_a_fleet_that_does_not_fit_is_refused_by_plan_and_up_with_the_numbers(tmp_path: Path) -> None:
    models = {"big": {"checkpoint": "embedded:l", "memory": "900GiB"}}
    path = written(tmp_path, models=models)
    for command in ("plan", "up"):
        refused = fleet(command, path)
        assert refused.returncode == 2
        assert "big does not fit: it claims 900.00 GiB" in " ".join(refused.stderr.split())
        assert "Traceback" not in refused.stderr
    path = written(tmp_path, "xs", "s", **room_for(1))
    refused = fleet("up", path)
    assert refused.returncode == 2
    assert "needed together but do not fit" in refused.stderr


def test_up_serves_until_down_and_the_file_may_come_from_the_environment(running: Path) -> None:
    started = fleet("up", "--detach", env={"APPORTION_FLEET": str(running)})
    assert started.returncode == 0, started.stderr
    found = status(running)
    assert found["running"]
    assert {server["model"]: server["phase"] for server in found["servers"]} == {"xs": "ready", "s": "ready"}
    assert found["loads"] == 2
    for server in found["servers"]:
        assert server["url"] in started.stdout
        listed = httpx.get(f"{server['url']}/models", trust_env=False).json()
        assert listed["data"][0]["id"] == server["model"]
    assert "2 loads" in fleet("status", running).stdout
    second = fleet("up", running)
    assert second.returncode == 2
    assert f"held by process {found['owner']['pid']} (up)" in " ".join(second.stderr.split())

    stopped = fleet("down", running)
    assert stopped.returncode == 0, stopped.stderr
    assert not any(group_members(server["process"]["pid"]) for server in found["servers"])
    gone = fleet("status", running, "--json")
    assert gone.returncode == 1
    assert json.loads(gone.stdout) == {"running": False, "servers": []}
    assert "nothing is up" in fleet("down", running).stdout


def test_after_kill_9_of_up_nothing_is_left_and_down_clears_the_state(running: Path) -> None:
    assert fleet("up", "--detach", "--model", "xs", running).returncode == 0
    found = status(running)
    assert [server["model"] for server in found["servers"]] == ["xs"]
    os.kill(found["owner"]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while group_members(found["servers"][0]["process"]["pid"]):
        assert time.monotonic() < deadline, "the server outlived its owner"
        time.sleep(0.1)
    stale = fleet("status", running)
    assert stale.returncode == 1
    assert "has died" in stale.stdout
    assert "had died; nothing was left running" in fleet("down", running).stdout


def test_ctrl_c_while_loading_stops_what_was_started(tmp_path: Path) -> None:
    path = written(tmp_path, "xs", executable=["sh", "-c", "sleep 600"])
    process = subprocess.Popen(
        [sys.executable, "-m", "api.command", "fleet", "up", str(path)], cwd=tmp_path, env=_environment()
    )
    deadline = time.monotonic() + 60
    while not (servers := [s for s in status(path)["servers"] if s["process"]]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    mark = ProcessMark(servers[0]["process"]["pid"], servers[0]["process"]["started"])
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not mark.alive


def test_up_that_fails_shows_the_servers_last_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "xs", executable=["sh", "-c", "echo the weights are missing; exit 1"])
    for words in ((), ("--detach",)):
        failed = fleet("up", path, *words)
        assert failed.returncode == 2
        assert "the weights are missing" in failed.stderr
        assert "Traceback" not in failed.stderr


def test_tune_measures_every_combination_and_writes_the_best(tmp_path: Path) -> None:
    models = {
        "xs": {"checkpoint": "embedded:xs", "memory": "1GiB", "overhead": "600MiB", "tune": {"max_num_seqs": [1, 64]}}
    }
    path = written(tmp_path, light=False, models=models)
    words = ["--requests", "4", "--n", "8", "--prompt-tokens", "16", "--max-tokens", "24", "--repeats", "2"]
    measured = fleet("tune", path, "-m", "xs", *words, "--out", tmp_path / "best.yaml", "--json")
    assert measured.returncode == 0, measured.stderr
    report = json.loads(measured.stdout)
    one, many = report["results"]
    assert one["setting"] == {"max_num_seqs": 1}
    rates = one["tokens_per_second"], many["tokens_per_second"]
    assert all(rate["low"] <= rate["median"] <= rate["high"] and len(rate["runs"]) == 2 for rate in rates)
    assert rates[1]["median"] > rates[0]["median"], "64 rows at once are faster than one at a time"
    assert report["best"] == {"max_num_seqs": 64}
    assert load_fleet(tmp_path / "best.yaml").spec.models["xs"].max_num_seqs == 64
    assert "xs" not in [server["model"] for server in status(path)["servers"]]


def test_tune_says_which_combination_could_not_be_measured(tmp_path: Path) -> None:
    model = {"checkpoint": "embedded:xs", "memory": "1GiB", "overhead": "600MiB", "tune": {"max_num_seqs": [7, 8]}}
    script = 'case "$*" in *"--max-num-seqs 7"*) echo seven is unlucky; exit 1;; esac; exec "$0" "$@"'
    light = light_fleet(tmp_path, "xs").executable
    path = written(tmp_path, models={"xs": model}, executable=["sh", "-c", script, *light])
    measured = fleet("tune", path, "-m", "xs", "--requests", "2", "--n", "1", "--json")
    report = json.loads(measured.stdout)
    assert "seven is unlucky" in report["results"][0]["error"]
    assert report["best"] == {"max_num_seqs": 8}


def test_tune_refuses_a_workload_beyond_the_context(tmp_path: Path) -> None:
    refused = fleet("tune", str(written(tmp_path, "xs")), "-m", "xs", "--prompt-tokens", "300")
    assert refused.returncode == 2
    assert "do not fit the context of xs, 256" in " ".join(refused.stderr.split())


def on_fleet() -> dict[str, Any]:
    """The small study with its models on a fleet."""
    raw = small_study()
    raw["pipeline"]["models"] = {name: {"backend": "fleet", "model": name} for name in ("xs", "s")}
    raw["data"].update(search=4, test=4)
    raw["budget"]["search"] = {"trials": 2}
    for stage in raw["pipeline"]["stages"]:
        stage.pop("verifier", None)
        stage["strategies"] = ["vote"]
    return raw


def test_a_study_names_models_of_the_fleet_and_faults_are_found_before_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faults() -> dict[str, str]:
        with pytest.raises(SpecError) as caught:
            validated_spec(on_fleet())
        return {fault.path: fault.message for fault in caught.value.faults}

    monkeypatch.delenv("APPORTION_FLEET", raising=False)
    assert "set it to the path of a fleet file" in faults()["pipeline.models.xs.model"]
    monkeypatch.setenv("APPORTION_FLEET", str(written(tmp_path, "s", "m")))
    assert faults().keys() == {"pipeline.models.xs.model"}
    assert "no model 'xs'; there are m, s" in faults()["pipeline.models.xs.model"]
    huge = {"checkpoint": "embedded:xs", "memory": "900GiB"}
    monkeypatch.setenv(
        "APPORTION_FLEET", str(written(tmp_path, models={"xs": huge, "s": {"checkpoint": "embedded:s"}}))
    )
    assert "xs does not fit: it claims 900.00 GiB" in faults()["pipeline.models.xs.model"]
    monkeypatch.setenv("APPORTION_FLEET", str(written(tmp_path, "xs", "s")))
    spec = validated_spec(on_fleet())
    plain = validated_spec(small_study())
    priced, known = (PlanCost(one.pipeline, "flops").parameters["s"] for one in (spec, plain))
    assert priced == known


def test_a_study_runs_to_its_plan_on_a_fleet_that_takes_one_model_at_a_time(tmp_path: Path) -> None:
    path = written(tmp_path, "xs", "s", light=False, **room_for(1))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(on_fleet()))
    finished = subprocess.run(
        [sys.executable, "-m", "api.command", "run", "study.yaml", "--json"],
        cwd=tmp_path, env=_environment() | {"APPORTION_FLEET": str(path)}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    plan = json.loads(finished.stdout)["plan"]
    assert {stage["model"] for stage in plan["stages"]} <= {"xs", "s"}
    assert plan["test_score"]["examples"] == 4
    assert not (tmp_path / "state" / "state.json").exists(), "the servers ended with the study's process"
    starts = sum((tmp_path / "state" / f"{name}.log").read_text().count("=== ") for name in ("xs", "s"))
    assert starts >= 3, "the models took turns"
