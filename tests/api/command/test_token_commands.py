"""Tokens by command: shown once, listed without their text, revoked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.command import app
from planner.archive import open_archive


def call(home: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments, "--home", str(home)])
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_token_is_made_shown_once_listed_and_revoked(tmp_path: Path) -> None:
    text = call(tmp_path, "token", "create", "ci", "--scope", "submit", "--expires", "30d").strip()
    assert text.startswith("apt_")
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    with open_archive(url) as archive:
        shown = archive.tokens.shown(text)
        assert shown is not None
        assert (shown.name, shown.scope) == ("ci", "submit")
    (listed,) = json.loads(call(tmp_path, "token", "list", "--json"))
    assert listed["name"] == "ci"
    assert text not in json.dumps(listed)
    assert "live" in call(tmp_path, "token", "list")
    call(tmp_path, "token", "revoke", "ci")
    assert "revoked" in call(tmp_path, "token", "list")
    with open_archive(url) as archive:
        assert archive.tokens.shown(text) is None


@pytest.mark.parametrize(
    "arguments", [("create", "ci", "--expires", "soon"), ("create", "ci", "--scope", "root"), ("revoke", "nobody")]
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["token", *arguments, "--home", str(tmp_path)]).exit_code != 0
