"""What is changed about a study: its notes under ETags, copies of it, and its end."""

from __future__ import annotations

from tests.api.service import Service, ended, long_spec, submit, tiny_spec

PROBLEM = "application/problem+json"


def test_notes_are_edited_only_by_who_has_read_them(service: Service, finished: str) -> None:
    path = f"/api/v1/studies/{finished}/notes"
    read = service.http.get(path)
    mine = {"if-match": read.headers["etag"]}
    assert service.http.put(path, json={"notes": "x"}).status_code == 428
    written = service.http.put(path, json={"notes": "Compare with mine"}, headers=mine)
    assert written.json() == {"notes": "Compare with mine"}
    late = service.http.put(path, json={"notes": "theirs"}, headers=mine)
    assert (late.status_code, late.headers["content-type"]) == (412, PROBLEM)
    weak = service.http.put(path, json={"notes": "weak"}, headers={"if-match": f"W/{written.headers['etag']}"})
    assert weak.status_code == 412
    assert service.http.get(path).json() == {"notes": "Compare with mine"}
    assert service.http.get(path).headers["etag"] == written.headers["etag"]
    again = service.http.put(path, json={"notes": ""}, headers={"if-match": f'"other", {written.headers["etag"]}'})
    assert again.status_code == 200
    assert service.http.put(path, json={"notes": "y" * 20_001}, headers={"if-match": "*"}).status_code == 422


def test_a_copy_that_is_still_good_is_not_sent_again(service: Service, finished: str) -> None:
    for path in (f"/api/v1/studies/{finished}", f"/api/v1/studies/{finished}/notes"):
        first = service.http.get(path)
        again = service.http.get(path, headers={"if-none-match": f'W/"x", {first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert service.http.get(path, headers={"if-none-match": '"x"'}).json() == first.json()


def test_a_clone_is_a_new_study_with_the_changes_asked_for(service: Service, finished: str) -> None:
    spec = service.http.get(f"/api/v1/studies/{finished}").json()["spec"]
    changes = {"name": "copied", "budget": {"search": {"trials": 1}}, "description": None}
    answer = service.http.post(f"/api/v1/studies/{finished}/clone", json={"overrides": changes})
    assert answer.status_code == 201, answer.text
    assert answer.json()["id"] != finished
    copy = service.http.get(answer.headers["location"]).json()["spec"]
    search = {**spec["budget"]["search"], "trials": 1}
    wanted = {**spec, "name": "copied", "description": "", "budget": {**spec["budget"], "search": search}}
    assert copy == wanted
    same = service.http.post(f"/api/v1/studies/{finished}/clone")
    assert same.status_code == 201
    assert service.http.get(same.headers["location"]).json()["spec"] == spec
    for study in (answer, same):
        ended(service, study.json()["id"])


def test_a_clone_with_a_fault_names_the_field_and_queues_nothing(service: Service, finished: str) -> None:
    before = service.http.get("/api/v1/studies").json()["items"][0]["id"]
    answer = service.http.post(f"/api/v1/studies/{finished}/clone", json={"overrides": {"seed": "x"}})
    assert [fault["path"] for fault in answer.json()["faults"]] == ["seed"]
    assert service.http.get("/api/v1/studies").json()["items"][0]["id"] == before


def test_a_study_is_deleted_once_it_has_ended_and_its_draws_stay(service: Service) -> None:
    study = submit(service, long_spec())
    path = f"/api/v1/studies/{study}"
    refused = service.http.delete(path)
    assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)
    service.http.post(f"{path}/cancel")
    ended(service, study)
    other = ended(service, submit(service, tiny_spec(name="deleted", seed=77)))
    key = service.runtime.archive.trials.evidence(other["id"], 1)[0].stages[0].prompt_key
    assert service.http.delete(f"/api/v1/studies/{other['id'][:6]}").status_code == 404, "only by its whole id"
    for one in (path, f"/api/v1/studies/{other['id']}"):
        assert service.http.delete(one).status_code == 204
        assert service.http.get(one).status_code == 404
        assert service.http.delete(one).status_code == 404
    assert service.runtime.archive.bank.held([key])
