"""What counts as changed: data files, checkpoints, what candidates cost; and that nothing is read twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from env.errors import ApportionError
from env.spec import StudySpec
from planner.schedules.fingerprint import Fingerprints, changes
from tests.api.service import tiny_spec, write_models

BOTH = ("data", "models")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    write_models(tmp_path)
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"question": f"w{n}", "answer": "w"}) for n in range(9)))
    return tmp_path


def spec(**changes: Any) -> StudySpec:
    data = {"source": "file", "path": "rows.jsonl", "search": 4, "test": 4}
    return StudySpec.model_validate({**tiny_spec(), "data": data, **changes})


def test_nothing_changed_is_no_change_and_no_file_is_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = Fingerprints()
    first = looking.of(spec())
    assert json.loads(json.dumps(first)) == first

    def read(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("planner.schedules.fingerprint._file_digest", read)
    monkeypatch.setattr("env.engine.config.checkpoint_revision", read)
    assert changes(first, looking.of(spec()), BOTH) == []


def test_another_row_is_a_change_of_the_data_only(root: Path) -> None:
    looking = Fingerprints()
    first = looking.of(spec())
    with (root / "rows.jsonl").open("a") as file:
        file.write('\n{"question": "w9", "answer": "w"}')
    now = looking.of(spec())
    assert changes(first, now, BOTH) == ["the data changed"]
    assert changes(first, now, ("models",)) == []


def test_a_file_touched_but_not_changed_is_no_change(root: Path) -> None:
    looking = Fingerprints()
    first = looking.of(spec())
    (root / "rows.jsonl").write_bytes((root / "rows.jsonl").read_bytes())
    assert changes(first, looking.of(spec()), BOTH) == []


def test_other_weights_are_another_revision_of_their_model(root: Path) -> None:
    looking = Fingerprints()
    first = looking.of(spec())
    weights = root / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert changes(first, looking.of(spec()), BOTH) == ["candidate tiny has another revision"]


def test_candidates_that_come_go_or_cost_otherwise_are_changes(root: Path) -> None:
    looking = Fingerprints()
    first = looking.of(spec())
    raw = tiny_spec()
    raw["pipeline"]["models"]["third"] = {"backend": "torch", "checkpoint": "small"}
    more = looking.of(spec(pipeline=raw["pipeline"]))
    assert changes(first, more, BOTH) == ["candidate third is new"]
    assert changes(more, first, BOTH) == ["candidate third is gone"]
    raw = tiny_spec()
    raw["pipeline"]["models"]["tiny"]["parameters"] = 12345.0
    assert changes(first, looking.of(spec(pipeline=raw["pipeline"])), BOTH) == ["what the candidates cost changed"]


def test_what_is_not_there_is_an_error_and_no_change(root: Path) -> None:
    (root / "rows.jsonl").unlink()
    with pytest.raises((ApportionError, OSError)):
        Fingerprints().of(spec())
