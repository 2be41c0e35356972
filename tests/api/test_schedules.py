"""Schedules over REST, on a real service with a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.service import Service, ended, tiny_spec, until

BASE = "/api/v1/schedules"


def schedule(name: str, **changes: Any) -> dict[str, Any]:
    spec = tiny_spec(name=name)
    spec["budget"]["search"]["trials"] = 3
    return {"name": name, "cron": "0 0 1 1 *", "timezone": "Europe/Berlin", "spec": spec, **changes}


@pytest.fixture
def yearly(service: Service) -> Iterator[dict[str, Any]]:
    """A schedule that does not fire by itself."""
    answer = service.http.post(BASE, json=schedule("yearly"))
    assert answer.status_code == 201, answer.text
    yield answer.json()
    service.http.delete(f"{BASE}/yearly")


def run_ended(service: Service, run: dict[str, Any]) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        held: dict[str, Any] = service.http.get(run["links"]["self"]).json()
        return held if held["status"] == "ended" else None

    return until(look)


def paths(answer: Any) -> set[str]:
    assert answer.status_code == 422, answer.text
    return {fault["path"] for fault in answer.json()["faults"]}


def test_a_schedule_run_by_hand_lists_its_runs_with_their_diffs(service: Service, yearly: dict[str, Any]) -> None:
    runs = []
    for _ in range(2):
        answer = service.http.post(f"{BASE}/yearly/run")
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == answer.json()["links"]["self"]
        runs.append(run_ended(service, answer.json()))
    first, second = runs
    assert (first["outcome"], second["outcome"]) == ("searched", "revalidated"), second["reason"]
    study = ended(service, first["new_study"])
    assert study["schedule"] == "yearly"
    assert second["incumbent_study"] == study["id"]
    assert second["revalidation"]["reused_draws"] == 0
    assert second["revalidation"]["draws"] > 0
    assert second["diff"]["plan"]["changed"] is False
    assert service.http.get(second["links"]["trial"]).json()["split"] == "revalidation"
    assert service.http.get(f"{BASE}/yearly").json()["incumbent_study"] == study["id"]

    page = service.http.get(f"{BASE}/yearly/runs", params={"limit": 1}).json()
    assert [run["id"] for run in page["items"]] == [second["id"]]
    rest = service.http.get(f"{BASE}/yearly/runs", params={"limit": 1, "cursor": page["next"]}).json()
    assert (rest["items"], rest["next"]) == ([first], None)
    assert service.http.get(f"{BASE}/other/runs/{first['id']}").status_code == 404
    # Its re-validation is a trial of the study's, and no part of its search.
    splits = [t["split"] for t in service.http.get(f"/api/v1/studies/{study['id']}/trials").json()["items"]]
    assert splits.count("revalidation") == 1
    assert service.http.get(f"/api/v1/studies/{study['id']}").json()["trials"] == splits.count("search")
    for page_url in (f"/studies/{study['id']}", f"/studies/{study['id']}/trials/{second['trial_no']}"):
        assert service.http.get(page_url).status_code == 200
    assert service.http.get(f"/api/v1/studies/{study['id']}/report", params={"format": "md"}).status_code == 200


def test_entering_a_schedule_again_changes_nothing(service: Service, yearly: dict[str, Any]) -> None:
    assert service.http.post(BASE, json=schedule("yearly")).json() == yearly
    other = service.http.post(BASE, json=schedule("yearly", cron="0 0 2 1 *"))
    assert other.status_code == 409
    listed = service.http.get(BASE).json()
    assert [(s["name"], s["cron"]) for s in listed if s["name"] == "yearly"] == [("yearly", "0 0 1 1 *")]
    assert "spec" not in listed[0]
    assert service.http.delete(f"{BASE}/yearly").status_code == 204
    assert service.http.delete(f"{BASE}/yearly").status_code == 404


def test_who_edits_says_which_version_they_saw(service: Service, yearly: dict[str, Any]) -> None:
    seen = service.http.get(f"{BASE}/yearly").headers["etag"]
    body = {key: value for key, value in schedule("yearly", cron="0 0 2 1 *", overlap="queue").items() if key != "name"}
    assert service.http.put(f"{BASE}/yearly", json=body).status_code == 428
    changed = service.http.put(f"{BASE}/yearly", json=body, headers={"If-Match": seen})
    assert changed.status_code == 200, changed.text
    assert (changed.json()["cron"], changed.json()["overlap"]) == ("0 0 2 1 *", "queue")
    assert changed.headers["etag"] != seen
    for method, sent in (("PUT", body), ("PATCH", {"keep_runs": 5})):
        late = service.http.request(method, f"{BASE}/yearly", json=sent, headers={"If-Match": seen})
        assert late.status_code == 412, late.text
    assert service.http.get(f"{BASE}/yearly").json()["keep_runs"] == 200
    assert service.http.put(f"{BASE}/gone", json=body, headers={"If-Match": "*"}).status_code == 404


def test_a_patch_changes_what_it_names_and_one_trigger_takes_the_place_of_another(
    service: Service, yearly: dict[str, Any]
) -> None:
    def patch(**changes: Any) -> dict[str, Any]:
        answer = service.http.patch(f"{BASE}/yearly", json=changes, headers={"If-Match": "*"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    changed = patch(missed="latest")
    assert (changed["missed"], changed["cron"], changed["spec"]) == ("latest", yearly["cron"], yearly["spec"])
    changed = patch(at="2099-03-29T02:30")
    assert (changed["at"], changed["cron"]) == ("2099-03-29T01:00:00Z", None)
    assert changed["next_firing"] == changed["at"]
    changed = patch(on_change=["models"])
    assert (changed["on_change"], changed["at"], changed["next_firing"]) == (["models"], None, None)
    wrong = service.http.patch(f"{BASE}/yearly", json={"cron": "often"}, headers={"If-Match": "*"})
    assert paths(wrong) == {"cron"}


def test_a_paused_schedule_has_no_next_firing(service: Service, yearly: dict[str, Any]) -> None:
    assert yearly["next_firing"] is not None
    paused = service.http.post(f"{BASE}/yearly/pause").json()
    assert (paused["paused"], paused["next_firing"]) == (True, None)
    resumed = service.http.post(f"{BASE}/yearly/resume").json()
    assert (resumed["paused"], resumed["next_firing"]) == (False, yearly["next_firing"])
    assert service.http.post(f"{BASE}/gone/pause").status_code == 404


def test_every_fault_of_a_schedule_is_answered_with_its_field(service: Service) -> None:
    def faults(**changes: Any) -> set[str]:
        return paths(service.http.post(BASE, json={**schedule("faulty"), **changes}))

    spec = tiny_spec()
    spec["pipeline"]["stages"][0]["models"] = ["gone"]
    assert faults(cron="every day", spec=spec) == {"cron", "spec.pipeline.stages[0].models[0]"}
    assert faults(timezone="Mars/Olympus") == {"timezone"}
    assert faults(name="no spaces allowed") == {"name"}
    assert faults(at="2099-01-01T00:00") == {"at"}
    assert faults(cron=None) == {"cron"}
    assert faults(cron=None, at="2020-01-01T00:00Z") == {"at"}
    assert faults(cron=None, at="tomorrow") == {"at"}
    assert faults(plan="nosuchstudy") == {"plan"}
    assert faults(overlap="sometimes") == {"overlap"}
    assert faults(alert={"url": "ftp://a.example", "secret_env": "KEY"}) == {"alert.url"}
    assert faults(alert={"url": "https://me:pass@a.example", "secret_env": "KEY"}) == {"alert.url"}
    assert faults(alert={"url": "http://169.254.169.254/x", "secret_env": "KEY"}) == {"alert.url"}
    assert faults(alert={"url": "https://a.example", "secret_env": "not a name"}) == {"alert.secret_env"}
    assert service.http.get(f"{BASE}/faulty").status_code == 404
