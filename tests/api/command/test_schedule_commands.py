"""``apportion schedule`` on a real archive; runs that are waited for are done by the command itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.command import app
from tests.api.command.test_commands import apportion
from tests.api.service import tiny_spec, write_models

runner = CliRunner()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_models(folder)
    raw = tiny_spec(name="tiny")
    raw["budget"]["search"]["trials"] = 3
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture
def command(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command on an archive of this test's own; its JSON where it is asked for, else its text."""
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(spec.parent))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, code: int = 0) -> Any:
        result = runner.invoke(app, ["schedule", *words, "--home", str(tmp_path / "home")])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in words else result.output

    return run


def test_a_schedule_is_created_listed_shown_paused_resumed_and_deleted(command: Any, spec: Path) -> None:
    made = command("create", "nightly", str(spec), "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", "--json")
    assert (made["name"], made["cron"], made["timezone"]) == ("nightly", "0 3 * * *", "Europe/Berlin")
    once = ("--at", "2099-01-02T03:04", "--overlap", "queue", "--missed", "latest", "--keep-runs", "9")
    made = command("create", "once", str(spec), *once, "--json")
    assert (made["at"], made["overlap"], made["missed"], made["keep_runs"]) == (
        "2099-01-02T03:04:00Z",
        "queue",
        "latest",
        9,
    )
    assert command("create", "drift", str(spec), "--on-change", "data, models", "--json")["on_change"] == [
        "data",
        "models",
    ]
    listed = command("list")
    assert "0 3 * * * (Europe/Berlin)" in listed
    assert "when data or models change" in listed
    assert [s["name"] for s in command("list", "--json")] == ["drift", "nightly", "once"]
    assert command("pause", "nightly", "--json")["paused"]
    assert "(paused)" in command("show", "nightly")
    assert not command("resume", "nightly", "--json")["paused"]
    assert "none yet: the first run searches" in command("show", "nightly")
    assert "deleted" in command("delete", "nightly")
    assert "no schedule 'nightly'" in command("delete", "nightly", code=2)


@pytest.mark.slow
def test_a_run_that_is_waited_for_is_done_by_the_command_itself(command: Any, spec: Path, tmp_path: Path) -> None:
    command("create", "nightly", str(spec), "--cron", "0 0 1 1 *")
    assert command("run", "nightly", "--json")["status"] == "waiting"
    assert "still under way" in command("run", "nightly", code=2)
    command("delete", "nightly")
    command("create", "nightly", str(spec), "--cron", "0 0 1 1 *")
    # In a process of its own: DBOS keeps what it finds of logging at its first start.
    waited = ("schedule", "run", "nightly", "--wait", "--json", "--home", str(tmp_path / "home"))
    done = apportion(tmp_path, *waited, env={"APPORTION_DATA_ROOT": str(spec.parent)})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "searched"
    text = command("show", "nightly")
    assert "no plan has been found yet; study" in text
    assert "none -> " in text
    assert [run["number"] for run in command("show", "nightly", "--json")["runs"]] == [1]


def test_what_is_wrong_is_said_with_its_field(command: Any, spec: Path) -> None:
    assert "give one of cron, at and on_change" in command(
        "create", "x", str(spec), "--cron", "* * * * *", "--at", "2099-01-01", code=2
    )
    assert "overlap" in command("create", "x", str(spec), "--cron", "* * * * *", "--overlap", "never", code=2)
    assert "alert.secret_env" in command(
        "create", "x", str(spec), "--cron", "* * * * *", "--alert-url", "https://a.example", code=2
    )
    assert "no study" in command("create", "x", str(spec), "--cron", "* * * * *", "--plan", "gone", code=2)
