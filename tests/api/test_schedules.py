"""Schedules over REST: they fire in the real scheduler."""

from __future__ import annotations

from typing import Any

from tests.api.service import Service, ended, tiny_spec, until


def schedule(**changes: Any) -> dict[str, Any]:
    return {"name": "often", "cron": "*/2 * * * * *", "timezone": "Europe/Berlin", "spec": tiny_spec(), **changes}


def queued_by(service: Service, name: str) -> list[dict[str, Any]]:
    listed = service.http.get("/api/v1/studies", params={"limit": 200}).json()["items"]
    return [study for study in listed if study["schedule"] == name]


def test_each_firing_queues_one_study(service: Service) -> None:
    answer = service.http.post("/api/v1/schedules", json=schedule())
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/api/v1/schedules/often"
    try:
        until(lambda: len(queued_by(service, "often")) >= 2)
    finally:
        assert service.http.delete("/api/v1/schedules/often").status_code == 204
    listed = queued_by(service, "often")
    for study in listed:
        assert ended(service, study["id"])["status"] == "done"
    assert len({study["id"] for study in listed}) == len(listed)
    assert service.http.get("/api/v1/schedules/often").status_code == 404


def test_a_schedule_is_listed_and_entering_it_again_changes_nothing(service: Service) -> None:
    wanted = schedule(name="yearly", cron="0 0 1 1 *", timezone="UTC")
    first = service.http.post("/api/v1/schedules", json=wanted)
    assert first.status_code == 201, first.text
    assert service.http.post("/api/v1/schedules", json=wanted).json() == first.json()
    other = service.http.post("/api/v1/schedules", json={**wanted, "cron": "0 0 2 1 *"})
    assert other.status_code == 409
    assert service.http.get("/api/v1/schedules/yearly").json()["cron"] == "0 0 1 1 *"
    assert "yearly" in [s["name"] for s in service.http.get("/api/v1/schedules").json()]
    assert service.http.delete("/api/v1/schedules/yearly").status_code == 204
    assert service.http.delete("/api/v1/schedules/yearly").status_code == 404


def test_every_fault_of_a_schedule_is_answered_with_its_field(service: Service) -> None:
    spec = tiny_spec()
    spec["pipeline"]["stages"][0]["models"] = ["gone"]
    answer = service.http.post("/api/v1/schedules", json=schedule(cron="every day", spec=spec))
    assert answer.status_code == 422
    assert {f["path"] for f in answer.json()["faults"]} == {"cron", "spec.pipeline.stages[0].models[0]"}
    answer = service.http.post("/api/v1/schedules", json=schedule(timezone="Mars/Olympus"))
    assert [f["path"] for f in answer.json()["faults"]] == ["timezone"]
    answer = service.http.post("/api/v1/schedules", json=schedule(name="no spaces allowed"))
    assert [f["path"] for f in answer.json()["faults"]] == ["name"]
    assert service.http.get("/api/v1/schedules/often").status_code == 404
