"""Nothing that the OpenAPI document allows or forbids is answered with a fault of ours or in an undocumented way."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.api.openapi_cases import Outcome, exercise
from tests.api.service import Service

SEED = 20_240_917


def sent(service: Service, finished: str, each: int) -> Outcome:
    example = service.http.get(f"/api/v1/studies/{finished}/trials/1/examples").json()["items"][0]["example_id"]
    return exercise(service, {"study_id": finished, "trial_no": 1, "example_id": example}, each, SEED)


def told(outcome: Outcome) -> str:
    return "\n\n".join(f"{kind}\n{request}" for kind, request in outcome.faults.items())


def test_some_hundred_generated_requests_are_answered_as_documented(service: Service, finished: str) -> None:
    outcome = sent(service, finished, 3)
    assert outcome.cases >= 150
    assert not outcome.faults, told(outcome)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
def test_ten_thousand_generated_requests_are_answered_as_documented(service: Service, finished: str) -> None:
    outcome = sent(service, finished, 220)
    assert outcome.cases >= 10_000
    assert not outcome.faults, told(outcome)
    answered = [status for counts in outcome.operations.values() for status in counts]
    assert {200, 201, 404, 409, 422} <= set(answered), "every sort of answer was met"


def test_every_operation_has_a_summary_a_known_tag_and_sound_examples(service: Service) -> None:
    document = service.http.get("/api/v1/openapi.json").json()
    tags = {tag["name"] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            place = f"{method.upper()} {path}"
            assert operation["summary"], place
            if path.startswith("/api/"):
                assert set(operation["tags"]) <= tags, place
                assert operation.get("description"), place
                assert {"422", "503"} <= operation["responses"].keys(), place
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    example = parameter.get("example", parameter["schema"].get("examples", [None])[0])
                    check(document, parameter["schema"], example, f"{place} {parameter['name']}")
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json", {})
                if status.startswith("2") and "example" in content:
                    check(document, content["schema"], content["example"], f"{place} {status}")


def check(document: dict[str, Any], schema: dict[str, Any], example: object, place: str) -> None:
    whole = {**schema, "components": document["components"]}
    faults = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(example)]
    assert not faults, f"{place}: {faults}"
