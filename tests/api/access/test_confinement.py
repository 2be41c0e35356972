"""What studies may reach from a service, as its settings say: servers, keys and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.access.confinement import ConfinementError, confine
from api.settings import Settings
from env import egress
from env.egress import OPERATOR, EgressError
from env.tasks.data import DataError, confined, data_root
from tests.api.service import Service, tiny_spec


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that nothing confines, before and after."""
    monkeypatch.setenv("APPORTION_DATA_ROOT", "x")
    monkeypatch.delenv("APPORTION_DATA_ROOT")
    monkeypatch.chdir(tmp_path)
    with egress.obeying(OPERATOR):
        yield


def reaches(url: str) -> bool:
    try:
        egress.checked_url(url)
    except EgressError:
        return False
    return True


@pytest.mark.parametrize(
    ("changed", "loopback", "private"),
    [
        ({}, True, False),
        ({"host": "0.0.0.0"}, False, False),
        ({"require_tokens": True}, False, False),
        ({"host": "0.0.0.0", "allowed_targets": ("127.0.0.1", "10.0.0.0/8")}, True, True),
    ],
)
def test_loopback_is_open_where_only_this_machines_user_may_ask(
    tmp_path: Path, changed: dict[str, Any], loopback: bool, private: bool
) -> None:
    confine(Settings(home=tmp_path).model_copy(update=changed))
    assert (reaches("http://127.0.0.1/v1"), reaches("http://10.0.0.1/v1")) == (loopback, private)
    assert reaches("http://93.184.216.34/v1")
    assert not reaches("http://169.254.169.254/v1")


def test_keys_are_closed_where_others_may_ask(tmp_path: Path) -> None:
    url = "http://93.184.216.34/v1"
    confine(Settings(home=tmp_path))
    egress.current().check_key("ANY_SECRET", url)
    confine(Settings(home=tmp_path, require_tokens=True, spec_keys=("GOOD@93.184.216.34",)))
    egress.current().check_key("GOOD", url)
    for variable, place in (("ANY_SECRET", url), ("GOOD", "http://93.184.216.35/v1"), ("GOOD", None)):
        with pytest.raises(EgressError, match="APPORTION_SPEC_KEYS"):
            egress.current().check_key(variable, place)


def test_files_are_those_of_the_data_folder_where_others_may_ask(tmp_path: Path) -> None:
    confine(Settings(home=tmp_path / "home"))
    assert data_root() == tmp_path
    confine(Settings(home=tmp_path / "home", require_tokens=True))
    assert data_root() == tmp_path / "home" / "data"
    with pytest.raises(DataError, match="outside the data root"):
        confined("../archive.db")
    os.environ.pop("APPORTION_DATA_ROOT")
    confine(Settings(home=tmp_path / "home", require_tokens=True, data_root=tmp_path / "named"))
    assert data_root() == tmp_path / "named"


def test_a_setting_that_means_nothing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfinementError, match="APPORTION_ALLOWED_TARGETS"):
        confine(Settings(home=tmp_path, allowed_targets=("10.0.0.0/99",)))
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfinementError, match="cannot be made"):
        confine(Settings(home=tmp_path / "home", require_tokens=True))


OUTSIDE = ("../secret", "/etc/passwd", "link/secret", "a/../../secret", "~/secret")


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("place", ["data", "checkpoint", "pool", "prices", "proposer"])
def test_no_file_outside_the_data_root_is_read_for_a_spec_sent_by_rest(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, path: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text('{"answer": "s3cret"}\n{"answer": "s3cret"}\n')
    (root / "link").symlink_to(tmp_path)
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(root))
    spec = tiny_spec()
    for model, checkpoint in (("tiny", "embedded:xs"), ("small", "embedded:s")):
        spec["pipeline"]["models"][model]["checkpoint"] = checkpoint
    match place:
        case "data":
            spec["data"] = {"source": "file", "path": f"{path}.jsonl"}
        case "checkpoint":
            spec["pipeline"]["models"]["tiny"]["checkpoint"] = path
        case "pool":
            spec["data"] = {"source": "pool", "gold": f"{path}.csv"}
        case "prices":
            spec["budget"]["plan"] = {"limit": 1, "unit": "dollars", "prices": path}
        case "proposer":
            spec["proposer"] = {"kind": "insight", "prices": path}
    answer = service.http.post("/api/v1/spec/check", json=spec)
    assert answer.status_code == 200
    told = " ".join(fault["message"] for fault in answer.json()["faults"])
    assert "outside the data root" in told or path.startswith("~")
    assert "s3cret" not in told
    assert not answer.json()["valid"]
