"""REST of studies, over real HTTP against a real worker."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
import yaml

from tests.api.service import Service, ended, long_spec, submit, tiny_spec, until

PROBLEM = "application/problem+json"


def faults(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == PROBLEM
    return {fault["path"]: fault["message"] for fault in answer.json()["faults"]}


def studies(service: Service) -> list[str]:
    return [study["id"] for study in service.http.get("/api/v1/studies").json()["items"]]


def test_a_submitted_study_runs_to_its_plan(service: Service) -> None:
    answer = service.http.post("/api/v1/studies", json=tiny_spec())
    assert answer.status_code == 201
    assert answer.json()["status"] == "queued"
    assert answer.headers["location"] == f"/api/v1/studies/{answer.json()['id']}"
    study = ended(service, answer.json()["id"])
    assert study["status"] == "done", study["error"]
    assert study["plan"]["predicted_cost"] <= 1.2e7
    assert 1 <= study["trials"] <= 8


def test_a_spec_may_be_sent_as_yaml(service: Service) -> None:
    body = yaml.safe_dump(tiny_spec(name="written-in-yaml"))
    answer = service.http.post("/api/v1/studies", content=body, headers={"content-type": "application/yaml"})
    assert answer.status_code == 201
    assert answer.json()["name"] == "written-in-yaml"


def test_an_idempotency_key_gives_the_same_study(service: Service) -> None:
    headers = {"idempotency-key": "once"}
    first = service.http.post("/api/v1/studies", json=tiny_spec(name="keyed"), headers=headers)
    again = service.http.post("/api/v1/studies", json=tiny_spec(name="keyed"), headers=headers)
    assert first.json()["id"] == again.json()["id"]
    other = service.http.post("/api/v1/studies", json=tiny_spec(name="other"), headers=headers)
    assert other.status_code == 409
    assert other.headers["content-type"] == PROBLEM


def unknown_model(spec: dict[str, Any]) -> None:
    spec["pipeline"]["stages"][0]["models"] = ["tiny", "gone"]


def stage_without_source(spec: dict[str, Any]) -> None:
    spec["pipeline"]["stages"][0]["prompt"][0]["template"] = "{{ solve }}"


def samples_out_of_range(spec: dict[str, Any]) -> None:
    spec["pipeline"]["stages"][1]["samples"] = {"min": 0, "max": 4}


def empty_data(spec: dict[str, Any]) -> None:
    spec["data"]["rows"] = []


def hopeless_budget(spec: dict[str, Any]) -> None:
    spec["budget"]["plan"]["limit"] = 1.0


def infinite_budget(spec: dict[str, Any]) -> None:
    spec["budget"]["plan"]["limit"] = 10**400


def infinite_text(spec: dict[str, Any]) -> None:
    spec["budget"]["plan"]["limit"] = "inf"


def unknown_proposer(spec: dict[str, Any]) -> None:
    spec["proposer"]["kind"] = "grit"


def unknown_field(spec: dict[str, Any]) -> None:
    spec["budget"]["search"]["tials"] = 3


@pytest.mark.parametrize(
    ("spoil", "path"),
    [
        (unknown_model, "pipeline.stages[0].models[1]"),
        (stage_without_source, "pipeline.stages[0].prompt[0].template"),
        (samples_out_of_range, "pipeline.stages[1].samples.min"),
        (empty_data, "data.rows"),
        (hopeless_budget, "budget.plan.limit"),
        (infinite_budget, "budget.plan.limit"),
        (infinite_text, "budget.plan.limit"),
        (unknown_field, "budget.search.tials"),
        (unknown_proposer, "proposer.kind"),
    ],
)
def test_a_faulty_spec_is_answered_with_the_field_and_nothing_is_queued(
    service: Service, spoil: Any, path: str
) -> None:
    before = studies(service)
    spec = tiny_spec()
    spoil(spec)
    found = faults(service.http.post("/api/v1/studies", json=spec))
    assert set(found) == {path}
    assert found[path]
    assert studies(service) == before


def test_every_fault_of_a_spec_is_answered_at_once(service: Service) -> None:
    spec = tiny_spec()
    unknown_model(spec)
    stage_without_source(spec)
    found = faults(service.http.post("/api/v1/studies", json=spec))
    assert {"pipeline.stages[0].models[1]", "pipeline.stages[0].prompt[0].template"} <= set(found)


BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 8)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
MERGES = "z: &a {k0: 1}\n" + "".join(
    f"k{i}: &{c} {{<<: [*{p}, *{p}]}}\n"
    for i, (p, c) in enumerate(zip("abcdefghijklmnopqrstu", "bcdefghijklmnopqrstuv", strict=True))
)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "a: [",
        "[" * 5000,
        "a: " + "{b: " * 5000,
        BOMB,
        MERGES,
        "seed: .inf",
        "name: 2024-01-01",
        'name: "\\0"',
        "- 1",
    ],
    ids=["brace", "bracket", "nested", "nested-maps", "aliases", "merges", "infinity", "date", "nul", "list"],
)
def test_what_is_no_usable_yaml_is_a_fault_and_answered_soon(service: Service, body: str) -> None:
    started = time.monotonic()
    answer = service.http.post("/api/v1/studies", content=body, headers={"content-type": "application/yaml"})
    assert faults(answer)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("body", [b"{", b'{"name": "\\ud800"}', b"\xff", b'{"seed": NaN}', b"[" * 100_000, b"null"])
def test_what_is_no_usable_json_is_a_fault(service: Service, body: bytes) -> None:
    assert faults(service.http.post("/api/v1/studies", content=body, headers={"content-type": "application/json"}))


def test_another_media_type_is_refused(service: Service) -> None:
    answer = service.http.post("/api/v1/studies", content="name: x", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.headers["content-type"] == PROBLEM


def test_studies_are_listed_page_by_page(service: Service, finished: str) -> None:
    submit(service, tiny_spec(name="paged-one"))
    submit(service, tiny_spec(name="paged-two"))
    first = service.http.get("/api/v1/studies", params={"limit": 1, "name": "PAGED"}).json()
    assert [s["name"] for s in first["items"]] == ["paged-two"]
    following = {"limit": 1, "name": "paged", "cursor": first["next"]}
    second = service.http.get("/api/v1/studies", params=following).json()
    assert [s["name"] for s in second["items"]] == ["paged-one"]
    assert second["next"] is None
    done = service.http.get("/api/v1/studies", params={"status": "done", "limit": 200}).json()["items"]
    assert finished in [s["id"] for s in done]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "status=dancing"])
def test_a_wrong_query_parameter_is_a_fault_of_that_parameter(service: Service, query: str) -> None:
    found = faults(service.http.get(f"/api/v1/studies?{query}"))
    assert [path.removesuffix("[0]") for path in found] == [f"query.{query.partition('=')[0]}"]


def test_a_study_is_found_by_the_unique_start_of_its_id(service: Service, finished: str) -> None:
    assert service.http.get(f"/api/v1/studies/{finished[:8]}").json()["id"] == finished


def test_trials_proposals_and_guidelines_are_readable(service: Service, finished: str) -> None:
    base = f"/api/v1/studies/{finished}"
    trials = service.http.get(f"{base}/trials").json()["items"]
    assert {trial["split"] for trial in trials} == {"search", "test"}
    trial = service.http.get(f"{base}/trials/1").json()
    assert trial["seconds"] > 0
    assert trial["load_seconds"] == 0, "models in this process have no servers to load"
    assert sum(trial["outcomes"].values()) == 10
    evidence = service.http.get(f"{base}/trials/1/examples").json()["items"]
    assert len(evidence) == 10
    assert {e["status"] for e in evidence} == {"scored"}
    proposals = service.http.get(f"{base}/proposals").json()["items"]
    accepted = [p["allocation"] for p in proposals if p["verdict"] == "accepted"]
    assert [t["allocation"] for t in trials if t["split"] == "search"] == accepted
    assert all(g["text"] for g in service.http.get(f"{base}/guidelines").json()["items"])
    assert service.http.get(f"{base}/trials/999").status_code == 404


def test_the_plan_comes_as_json_or_yaml(service: Service, finished: str) -> None:
    base = f"/api/v1/studies/{finished}/plan"
    as_json = service.http.get(base).json()
    assert as_json["kind"] == "chosen"
    by_header = service.http.get(base, headers={"accept": "application/yaml"})
    assert by_header.headers["content-type"].startswith("application/yaml")
    assert yaml.safe_load(by_header.text) == as_json
    best = service.http.get(base, params={"kind": "best", "format": "yaml"})
    assert yaml.safe_load(best.text)["kind"] == "best"


def test_a_running_study_is_cancelled_and_the_service_answers_meanwhile(service: Service) -> None:
    study = submit(service, long_spec())
    waiting = submit(service, tiny_spec(name="behind"))
    until(lambda: service.http.get(f"/api/v1/studies/{study}").json()["phase"] == "execute")
    started = time.monotonic()
    assert service.http.get("/healthz").json() == {"status": "ok"}
    assert time.monotonic() - started < 5
    assert service.http.get("/readyz").status_code == 200
    assert service.http.get(f"/api/v1/studies/{study}/plan").status_code == 404
    assert service.http.post(f"/api/v1/studies/{waiting}/cancel").json()["status"] == "cancelled"
    assert service.http.post(f"/api/v1/studies/{study}/cancel").status_code == 202
    assert ended(service, study)["status"] == "cancelled"
    assert service.http.post(f"/api/v1/studies/{study}/cancel").json()["status"] == "cancelled"


def test_studies_are_paused_resumed_and_queued_by_priority(service: Service) -> None:
    running = submit(service, long_spec())
    until(lambda: service.http.get(f"/api/v1/studies/{running}").json()["status"] == "running")
    answer = service.http.post("/api/v1/studies", params={"priority": 7}, json=tiny_spec(name="first"))
    study = answer.json()
    assert (study["priority"], study["queue"], study["pause_requested"]) == (7, "studies", False)
    assert service.http.post("/api/v1/studies", params={"priority": 0}, json=tiny_spec()).status_code == 422
    paused = service.http.post(f"/api/v1/studies/{study['id']}/pause")
    assert (paused.status_code, paused.json()["status"]) == (202, "paused")
    [queue] = service.http.get("/api/v1/queues").json()
    assert queue == {"name": "studies", "waiting": 0, "running": 1, "per_worker": 1, "total": None}
    assert service.http.post(f"/api/v1/studies/{study['id']}/resume").json()["status"] == "queued"
    service.http.post(f"/api/v1/studies/{running}/cancel")
    assert ended(service, study["id"])["status"] == "done"
    refused = service.http.post(f"/api/v1/studies/{study['id']}/pause")
    assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)


def test_a_check_queues_nothing_and_prices_the_cheapest_allocation(service: Service) -> None:
    before = studies(service)
    good = service.http.post("/api/v1/spec/check", json=tiny_spec()).json()
    assert good["valid"]
    assert good["cheapest"]["predicted_cost"] > 0
    spec = tiny_spec()
    hopeless_budget(spec)
    poor = service.http.post("/api/v1/spec/check", json=spec).json()
    assert [f["path"] for f in poor["faults"]] == ["budget.plan.limit"]
    assert poor["cheapest"] == good["cheapest"]
    assert studies(service) == before


def test_an_estimate_forecasts_the_ledgers_and_queues_nothing(service: Service) -> None:
    before = studies(service)
    spec = tiny_spec()
    spec["budget"]["search"] = {**spec["budget"].get("search", {}), "tokens": 10**9, "wall_seconds": 3600}
    answer = service.http.post("/api/v1/estimate", json=spec)
    assert answer.status_code == 200
    estimate = answer.json()
    search = {line["unit"]: line for line in estimate["ledgers"] if line["ledger"] == "search"}
    assert 0 < search["draws"]["expected"] <= search["draws"]["worst"]
    assert search["tokens"]["limit"] == 10**9
    assert {"FLOPs", "s"} <= search.keys()
    assert estimate["ends_with"] in ("trials", "space")
    hopeless_budget(spec)
    refused = service.http.post("/api/v1/estimate", json=spec)
    assert refused.status_code == 422
    assert studies(service) == before


def test_a_study_says_what_ended_it(service: Service, finished: str) -> None:
    study = service.http.get(f"/api/v1/studies/{finished}").json()
    plan = service.http.get(f"/api/v1/studies/{finished}/plan").json()
    assert study["stopped"] == plan["stopped"] != ""


def test_the_schema_and_openapi_describe_the_spec(service: Service) -> None:
    schema = service.http.get("/api/v1/spec/schema").json()
    assert {"name", "pipeline", "data", "budget"} <= set(schema["properties"])
    openapi = service.http.get("/api/v1/openapi.json").json()
    post = openapi["paths"]["/api/v1/studies"]["post"]["requestBody"]["content"]
    assert post["application/json"]["schema"]["$ref"].endswith("/StudySpec")
    assert post["application/json"]["example"]["pipeline"]["stages"]
    known = openapi["components"]["schemas"]
    for name in references(openapi):
        assert name in known


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        here = {str(node["$ref"]).rpartition("/")[2]} if isinstance(node.get("$ref"), str) else set()
        return here.union(*(references(value) for value in node.values()))
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()
