"""Pipelines, models and the fleet over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.service import Service, submit, tiny_spec
from tests.api.test_lists import every_item


def test_a_pipeline_of_the_archive_is_a_part_of_a_new_spec(service: Service, finished: str) -> None:
    digest = service.http.get(f"/api/v1/studies/{finished}").json()["pipeline"]
    listed = {p["digest"]: p for p in every_item(service, "/api/v1/pipelines", 1)}
    assert listed[digest]["names"] == ["tiny"]
    assert [stage["name"] for stage in listed[digest]["stages"]] == ["find", "solve"]
    assert listed[digest]["studies"] >= 1
    content = service.http.get(f"/api/v1/pipelines/{digest}").json()["pipeline"]
    again = submit(service, tiny_spec(name="reused", pipeline=content))
    assert service.http.get(f"/api/v1/studies/{again}").json()["pipeline"] == digest
    using = service.http.get(listed[digest]["links"]["studies"]).json()["items"]
    assert {again, finished} <= {study["id"] for study in using}


def test_bundled_pipelines_are_usable_specs_too(service: Service) -> None:
    (bundled,) = service.http.get("/api/v1/pipelines/bundled").json()
    assert service.http.get(f"/api/v1/pipelines/{bundled['digest']}").json() == bundled
    spec = tiny_spec(pipeline=bundled["pipeline"], data={"source": "ledger", "search": 4, "test": 4})
    spec["budget"]["plan"]["limit"] = 1e9
    assert service.http.post("/api/v1/spec/check", json=spec).json()["faults"] == []
    assert service.http.get("/api/v1/pipelines/none").status_code == 404


def test_models_are_those_shipped_published_and_seen(service: Service, finished: str) -> None:
    models = every_item(service, "/api/v1/models", 50)
    kinds = {kind: {m["name"] for m in models if m["kind"] == kind} for kind in ("embedded", "published", "seen")}
    assert "xs" in kinds["embedded"]
    assert {"tiny", "small"} <= kinds["seen"]
    published = {m["name"]: m["parameters"] for m in models if m["kind"] == "published"}
    assert published["llama-3.1-8b"] == 8.03e9
    found = service.http.get("/api/v1/models", params={"name": "LLAMA-3.1-8"}).json()["items"]
    assert [m["name"] for m in found] == ["llama-3.1-8b"]


def test_the_fleet_is_shown_as_its_file_and_owner_say(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APPORTION_FLEET", raising=False)
    assert service.http.get("/api/v1/fleet").json()["configured"] is False
    file = tmp_path / "fleet.yaml"
    monkeypatch.setenv("APPORTION_FLEET", str(file))
    assert "cannot read" in service.http.get("/api/v1/fleet").json()["problem"]
    file.write_text("models: {s: {checkpoint: 'embedded:s'}}\nengine: torch\n", encoding="utf-8")
    fleet = service.http.get("/api/v1/fleet").json()
    assert (fleet["problem"], fleet["models"], fleet["running"], fleet["servers"]) == ("", ["s"], False, [])
    assert [m["name"] for m in every_item(service, "/api/v1/models", 200) if m["kind"] == "fleet"] == ["s"]
