"""The command line as a user meets it: real processes, real embedded models, a real archive."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from api.demo import demo_yaml


def small_study() -> dict[str, Any]:
    """The demo on its two smallest models and a handful of examples: a few seconds."""
    raw: dict[str, Any] = yaml.safe_load(demo_yaml())
    raw["name"] = "small"
    raw["data"].update(search=16, test=16)
    raw["budget"] = {"plan": {"limit": 1.0e8, "unit": "flops"}, "search": {"trials": 8}}
    raw["proposer"] = {"kind": "insight", "batch": 2}
    for stage in raw["pipeline"]["stages"]:
        stage["models"] = ["xs", "s"]
        stage["samples"] = {"min": 1, "max": 4, "choices": [1, 2, 4]}
    return raw


def apportion(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, timeout: float = 200
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.command", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=timeout,
        env={**_environment(), **(env or {})},
    )


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("APPORTION_", "OPENAI_"))}
    return {**kept, "COLUMNS": "200"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small study has run."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "study.yaml").write_text(yaml.safe_dump(small_study()))
    finished = apportion(folder, "run", "study.yaml", "--out", "out")
    assert finished.returncode == 0, finished.stderr
    assert "The plan" in finished.stdout
    assert "95% interval" in finished.stdout
    return folder


def study_id(folder: Path) -> str:
    listed = json.loads(apportion(folder, "studies", "--json").stdout)
    assert [s["status"] for s in listed] == ["done"]
    return str(listed[0]["id"])


def test_run_leaves_a_plan_and_a_report(done: Path) -> None:
    out = done / "out" / study_id(done)
    plan = yaml.safe_load((out / "plan.yaml").read_text())
    report = json.loads((out / "report.json").read_text())
    page = (out / "report.html").read_text()
    assert plan["allocation"] == report["plan"]["allocation"]
    assert plan["predicted_cost"] <= plan["budget"]
    assert len(report["trials"]) == plan["trials"] == 8
    assert "Plotly.newPlot" in page
    assert "http://" not in page.split("<body>")[1].split("Plotly.newPlot")[0]


def test_a_report_is_written_or_printed_in_every_format(done: Path) -> None:
    identity = study_id(done)
    out = done / "out" / identity
    markdown = (out / "report.md").read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown)
    assert pictures
    assert all((out / picture).is_file() for picture in pictures)
    printed = apportion(done, "report", identity[:6], "--format", "md").stdout
    assert printed.startswith("# Plan of small\n")
    assert "![" not in printed
    assert json.loads(apportion(done, "report", "small", "--format", "json").stdout)["study"]["id"] == identity
    assert "Plotly.newPlot" in apportion(done, "report", "small", "--format", "html").stdout
    again = apportion(done, "report", "small", "--out", "again")
    assert again.returncode == 0, again.stderr
    assert (done / "again" / identity / "report.md").read_text() == markdown
    wrong = apportion(done, "report", "small", "--format", "pdf")
    assert wrong.returncode == 2
    assert "json, md, html" in wrong.stderr.replace("\n", " ")


def test_a_report_of_an_unknown_study_is_refused_clearly(done: Path) -> None:
    refused = apportion(done, "report", "nothing-like-it")
    assert refused.returncode == 2
    assert "list the studies" in refused.stderr.replace("\n", " ")


def test_what_a_script_may_read_is_json(done: Path) -> None:
    identity = study_id(done)
    shown = json.loads(apportion(done, "show", identity[:6], "--json").stdout)
    assert shown["study"]["name"] == "small"
    trials = json.loads(apportion(done, "trials", "small", "--json").stdout)
    assert {t["split"] for t in trials} == {"search", "test"}
    as_json = json.loads(apportion(done, "plan", identity, "--format", "json").stdout)
    assert as_json == yaml.safe_load(apportion(done, "plan", identity).stdout)


def test_plans_are_listed_named_and_compared(done: Path) -> None:
    identity = study_id(done)
    assert apportion(done, "plan", "show", identity).stdout == apportion(done, "plan", identity).stdout
    best = yaml.safe_load(apportion(done, "plan", identity, "--kind", "best").stdout)
    assert best["kind"] == "best"
    promoted = apportion(done, "plan", "promote", identity[:6], "--name", "ledger")
    assert "ask model plan:ledger" in promoted.stdout, promoted.stderr
    listed = json.loads(apportion(done, "plan", "list", "--json").stdout)
    assert {p["plan"]: p["names"] for p in listed} == {identity: ["ledger"], f"{identity}:best": []}
    history = json.loads(apportion(done, "plan", "history", "ledger", "--json").stdout)
    assert [h["study_id"] for h in history] == [identity]
    difference = json.loads(apportion(done, "plan", "diff", "ledger", f"{identity}:best", "--json").stdout)
    assert difference["before"] == identity
    assert difference["score"]["difference"]["examples"] == 16
    exported = apportion(done, "plan", "export", "ledger", "--out", "exported")
    assert exported.returncode == 0, exported.stderr
    assert {f.name for f in (done / "exported").iterdir()} == {"plan.yaml", "serve.sh", "plan.py"}
    assert os.access(done / "exported" / "serve.sh", os.X_OK)
    wrong = apportion(done, "plan", "promote", identity, "--name", "9 lives")
    assert wrong.returncode == 2
    assert "starts with a letter" in wrong.stderr


def test_tables_are_for_people(done: Path) -> None:
    assert "MFLOPs" in apportion(done, "trials", "small").stdout
    assert "Guidelines" in apportion(done, "show", "small").stdout


def test_an_unknown_study_is_explained(done: Path) -> None:
    missing = apportion(done, "show", "nothing-like-it")
    assert missing.returncode == 2
    assert "no study has the id or name" in missing.stderr


def test_a_wrong_spec_lists_every_fault_and_queues_nothing(tmp_path: Path) -> None:
    raw = small_study()
    raw["pipeline"]["stages"][0]["models"] = ["huge"]
    raw["pipeline"]["stages"][1]["prompt"][1]["template"] = "{{ solve }}"
    raw["data"]["search"] = 0
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(raw))
    refused = apportion(tmp_path, "run", "bad.yaml")
    assert refused.returncode == 2
    assert "data.search" in refused.stderr
    raw["data"]["search"] = 8
    path.write_text(yaml.safe_dump(raw))
    refused = apportion(tmp_path, "run", "bad.yaml")
    assert "pipeline.stages[0].models[0]: no model 'huge'" in refused.stderr
    assert "pipeline.stages[1].prompt[1].template" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert json.loads(apportion(tmp_path, "studies", "--json").stdout) == []


def test_a_killed_run_is_resumed_to_the_same_plan(done: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(small_study()))
    command = [sys.executable, "-m", "api.command", "run", "study.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env=_environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not _draws(tmp_path):
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    identity = json.loads(apportion(tmp_path, "studies", "--json").stdout)[0]["id"]
    resumed = apportion(tmp_path, "resume", identity, "--json")
    assert resumed.returncode == 0, resumed.stderr
    mine = json.loads(resumed.stdout)["plan"]
    reference = yaml.safe_load(apportion(done, "plan", study_id(done)).stdout)
    for document in (mine, reference):
        document["provenance"].pop("study_id")
    assert mine == reference


def _draws(folder: Path) -> int:
    import sqlite3

    path = folder / ".apportion" / "archive.db"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("select count(*) from draws").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_cancelling_a_finished_study_leaves_it_done(done: Path) -> None:
    assert json.loads(apportion(done, "cancel", "small", "--json").stdout)["status"] == "done"


def test_doctor_finds_nothing_wrong_and_says_what_the_agent_needs(done: Path) -> None:
    looked = apportion(done, "doctor", "--json")
    findings = {f["subject"]: f for f in json.loads(looked.stdout)}
    assert looked.returncode == 0, findings
    assert findings["agent"]["level"] == "note"
    assert "APPORTION_LLM_MODEL" in findings["agent"]["message"]


def test_doctor_names_a_broken_archive(tmp_path: Path) -> None:
    looked = apportion(tmp_path, "doctor", "--json", env={"APPORTION_DATABASE_URL": "mysql://x/y"})
    assert looked.returncode == 1
    findings = {f["subject"]: f for f in json.loads(looked.stdout)}
    assert findings["archive"]["level"] == "trouble"


def test_the_schema_is_json_schema() -> None:
    schema = json.loads(apportion(Path.cwd(), "schema").stdout)
    assert schema["title"] == "StudySpec"
    assert "pipeline" in schema["required"]


def test_the_bank_is_counted_exported_and_pruned(done: Path) -> None:
    counted = json.loads(apportion(done, "bank", "stats", "--json").stdout)
    assert counted["draws"] > 0
    assert sum(counted["models"].values()) == counted["draws"]
    exported = apportion(done, "bank", "export", "draws.parquet", "--json")
    assert json.loads(exported.stdout)["draws"] == counted["draws"] == pq.read_metadata(done / "draws.parquet").num_rows
    dry = json.loads(apportion(done, "bank", "prune", "--older-than", "0", "--json").stdout)
    assert dry["dry_run"] is True
    assert dry["pruned"]["draws"] + dry["pruned"]["protected"] == counted["draws"]
    assert json.loads(apportion(done, "bank", "stats", "--json").stdout)["draws"] == counted["draws"]


def test_a_pruning_by_force_and_a_policy_say_what_they_did(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / ".apportion", tmp_path / ".apportion")
    assert "texts: days:30" in apportion(tmp_path, "bank", "policy", "days:30").stdout
    assert apportion(tmp_path, "bank", "policy", "forever").returncode == 2
    refused = apportion(tmp_path, "bank", "prune", "--force", "--yes")
    assert refused.returncode == 2
    assert "--older-than" in refused.stderr
    pruned = apportion(tmp_path, "bank", "prune", "--older-than", "0", "--force", "--yes")
    assert pruned.returncode == 0, pruned.stderr
    assert "removed" in pruned.stdout
    assert json.loads(apportion(tmp_path, "bank", "stats", "--json").stdout)["draws"] == 0


def test_check_forecasts_what_a_study_would_spend_and_which_limit_ends_it(tmp_path: Path) -> None:
    raw = small_study()
    raw["budget"]["search"]["draws"] = 200
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    shown = apportion(tmp_path, "check", "study.yaml")
    assert shown.returncode == 0, shown.stderr
    assert "no faults" in shown.stdout
    assert "initial trials" in shown.stdout
    assert "200 draws" in shown.stdout
    printed = apportion(tmp_path, "check", "study.yaml", "--json")
    data = json.loads(printed.stdout)["forecast"]
    assert data["ends_with"] == "draws"
    assert data["trials"] < data["most_trials"] == 8
    assert f"the limit of draws, after about {data['trials']} of 8 trials" in shown.stdout
    assert not (tmp_path / ".apportion").exists()


def test_a_run_shows_its_forecast_before_and_its_end_after(done: Path) -> None:
    finished = apportion(done, "run", "study.yaml", "--out", "again")
    assert finished.returncode == 0, finished.stderr
    assert "Forecast" in finished.stderr
    assert "Times are those of study" in finished.stderr
    assert "Search ended" in finished.stdout
