"""Commands on a service under a URL say what they say on the archive behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from api.command import app
from tests.api.service import Service, ended, tiny_spec

COMMANDS = ("studies", "show", "trials", "plan", "plan --format json", "studies --json", "show --json", "trials --json")


@pytest.fixture
def home(service: Service) -> Path:
    """Folder of the archive behind the service."""
    return Path(str(service.runtime.archive.engine.url.database)).parent


def apportion(*words: str, **environment: str) -> Result:
    return CliRunner(env={"COLUMNS": "200", **environment}).invoke(app, list(words))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_the_same_of_a_service_and_of_its_archive(
    service: Service, home: Path, finished: str, command: str
) -> None:
    name, *options = command.split()
    asked = [name, *([] if name == "studies" else [finished]), *options]
    here = apportion(*asked, "--home", str(home))
    assert here.exit_code == 0, here.output
    there = apportion(*asked, "--url", service.url)
    by_environment = apportion(*asked, APPORTION_URL=service.url)
    assert here.stdout
    assert there.stdout == by_environment.stdout == here.stdout


def test_a_study_is_run_by_a_service_and_its_files_are_fetched(service: Service, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(tiny_spec(name="from-afar")), encoding="utf-8")
    ran = apportion("run", str(tmp_path / "spec.yaml"), "--url", service.url, "--out", str(tmp_path / "out"))
    assert ran.exit_code == 0, ran.output
    assert "The plan" in ran.stdout
    (folder,) = (tmp_path / "out").iterdir()
    assert yaml.safe_load((folder / "plan.yaml").read_text())["kind"] == "chosen"
    assert json.loads((folder / "report.json").read_text())["study"]["id"] == folder.name
    assert {"report.md", "report.html"} <= {path.name for path in folder.iterdir()}
    assert list((folder / "report").glob("*.svg"))


def test_a_study_is_queued_and_cancelled_from_afar(service: Service, tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(tiny_spec(name="queued-from-afar")), encoding="utf-8")
    queued = apportion("submit", str(spec), "--url", service.url, "--json")
    assert queued.exit_code == 0, queued.output
    identity = json.loads(queued.stdout)["id"]
    assert apportion("cancel", identity, "--url", service.url).exit_code == 0
    assert ended(service, identity)["status"] in ("cancelled", "done")


def test_faults_that_the_service_finds_are_told_by_field(service: Service, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(tiny_spec(seed=-1)), encoding="utf-8")
    refused = apportion("submit", str(spec), "--url", service.url)
    assert refused.exit_code == 2
    assert "seed" in refused.stderr
    nowhere = apportion("studies", "--url", "http://127.0.0.1:9")
    assert nowhere.exit_code == 2
    assert "nothing answers" in nowhere.stderr.replace("\n", " ")
