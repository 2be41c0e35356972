"""Settings: where they come from, which comes first, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.command import app
from api.file_settings import SettingsError
from api.settings import READ_ELSEWHERE, Settings, listed_settings, load_settings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of ours, and none left behind."""
    for name in [name for name in os.environ if name.startswith("APPORTION_")]:
        monkeypatch.delenv(name)
    for name in READ_ELSEWHERE:
        monkeypatch.setenv(f"APPORTION_{name.upper()}", "")
        monkeypatch.delenv(f"APPORTION_{name.upper()}")


def write(home: Path, text: str) -> Path:
    (home / "apportion.toml").write_text(text)
    return home


def test_options_come_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'port = 1111\nhost = "::1"\nallowed_hosts = ["a.example", "b.example"]\nlog_level = "error"\n'
    home = write(tmp_path, text)
    monkeypatch.setenv("APPORTION_PORT", "2222")
    monkeypatch.setenv("APPORTION_LOG_LEVEL", "debug")
    settings = load_settings(home=home, port=3333)
    assert (settings.port, settings.log_level, settings.host) == (3333, "debug", "::1")
    assert settings.allowed_hosts == ("a.example", "b.example")
    origins = {one.name: one.origin for one in listed_settings(settings)}
    assert {name: origins[name] for name in ("port", "log_level", "host", "session_hours", "home")} == {
        "port": "environment", "log_level": "environment", "host": "file", "session_hours": "default", "home": "option",
    }  # fmt: skip


def test_the_file_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "elsewhere.toml"
    file.write_text("port = 4444\n")
    monkeypatch.setenv("APPORTION_CONFIG", str(file))
    assert load_settings(home=tmp_path / "home").port == 4444
    monkeypatch.setenv("APPORTION_CONFIG", str(tmp_path / "gone.toml"))
    with pytest.raises(SettingsError, match="is no file"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1\n", "no setting prot"),
        ("port = \n", "cannot be read"),
        ("port = 99999999\n", "APPORTION_PORT"),
        ('home = "/tmp"\n', "set APPORTION_HOME"),
        ("[server]\nport = 1\n", "no setting server"),
    ],
)
def test_a_file_with_a_fault_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(home=write(tmp_path, text))
    answer = CliRunner().invoke(app, ["settings", "--home", str(tmp_path)])
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output


def test_what_other_code_reads_as_variables_may_stand_in_the_file(tmp_path: Path) -> None:
    load_settings(home=write(tmp_path, f'data_root = "{tmp_path}"\nllm_model = "from-file"\n'))
    assert os.environ["APPORTION_DATA_ROOT"] == str(tmp_path)
    assert os.environ["APPORTION_LLM_MODEL"] == "from-file"


def test_every_setting_is_listed_with_its_meaning_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPORTION_DATABASE_URL", "postgresql://planner:hunter2hunter2@db/apportion")
    answer = CliRunner().invoke(app, ["settings", "--json", "--home", str(tmp_path)])
    listed = {one["name"]: one for one in json.loads(answer.stdout)}
    assert set(listed) == set(Settings.model_fields)
    assert all(one["description"] for one in listed.values())
    assert listed["database_url"]["origin"] == "environment"
    assert "db/apportion" in listed["database_url"]["value"]
    table = CliRunner().invoke(app, ["settings", "--home", str(tmp_path)], env={"COLUMNS": "250"})
    assert "APPORTION_ALLOWED_HOSTS" in table.stdout
    for output in (answer.output, table.output):
        assert "hunter2" not in output
