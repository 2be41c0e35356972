"""Plans over REST: listing, comparing, naming."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.api.service import Service, ended, submit, tiny_spec


@pytest.fixture(scope="module")
def other(service: Service) -> str:
    """A study of the same data with another search."""
    spec = tiny_spec(name="other")
    spec["budget"] = {"plan": {"limit": 4e6, "unit": "flops"}, "search": {"trials": 4}}
    return str(ended(service, submit(service, spec))["id"])


def get(service: Service, path: str, expected: int = 200, **params: Any) -> Any:
    answer = service.http.get(f"/api/v1/plans{path}", params=params)
    assert answer.status_code == expected, answer.text
    return answer.json()


def promote(service: Service, name: str, plan: str, expected: int = 200) -> Any:
    answer = service.http.post(f"/api/v1/plans/{name}/promote", json={"plan": plan})
    assert answer.status_code == expected, answer.text
    return answer.json()


def test_plans_are_listed_newest_first_page_by_page(service: Service, finished: str, other: str) -> None:
    whole = [plan["id"] for plan in get(service, "", limit=200)["items"]]
    assert {finished, f"{finished}:best", other, f"{other}:best"} <= set(whole)
    walked, cursor = [], None
    while True:
        page = get(service, "", limit=2, **({"cursor": cursor} if cursor else {}))
        walked += [plan["id"] for plan in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert walked == whole
    assert {plan["study"] for plan in get(service, "", name="oth")["items"]} == {"other"}
    get(service, "", cursor="nothing", expected=422)


def test_a_plan_is_shown_with_its_document_by_id_name_and_kind(service: Service, finished: str) -> None:
    shown = get(service, f"/{finished}")
    assert shown["document"]["provenance"]["study_id"] == finished
    assert get(service, f"/{finished}:best")["kind"] == "best"
    assert get(service, f"/{finished[:8]}")["id"] == finished
    assert service.http.get(shown["links"]["self"]).json() == shown
    get(service, "/nothing-like-it", expected=404)
    get(service, "/a b", expected=422)


def test_a_name_is_served_as_soon_as_it_is_given_and_rolled_back_by_giving_it_again(
    service: Service, finished: str, other: str
) -> None:
    with OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as client:

        def served() -> str:
            reply = client.chat.completions.create(
                model="plan:qa", messages=[{"role": "user", "content": "w1"}], seed=1
            )
            return str(reply.model_extra["apportion"]["plan"])  # type: ignore[index]

        with pytest.raises(openai.NotFoundError):
            served()
        assert promote(service, "qa", finished)["promoted_by"] == "loopback"
        assert served() == finished
        promote(service, "qa", other)
        assert served() == other
        promote(service, "qa", finished)
        assert served() == finished
        assert {"plan:qa", "stage:qa/solve"} <= {model.id for model in client.models.list()}
    assert [line["plan"] for line in get(service, "/qa/history")] == [finished, other, finished]
    assert get(service, f"/{finished}")["names"] == ["qa"]
    assert get(service, "/qa")["id"] == finished


def test_what_cannot_be_promoted_is_refused(service: Service, finished: str, other: str) -> None:
    promote(service, "qa2", "nothing-like-it", expected=404)
    promote(service, "9lives", finished, expected=422)
    get(service, "/unheard-of/history", expected=404)
    service.runtime.archive.studies.create("taken", "taken", {}, 0)
    assert "choose a name that is none" in promote(service, "taken", finished, expected=409)["detail"]


def test_two_plans_on_the_same_examples_are_told_apart_by_pairs(service: Service, finished: str, other: str) -> None:
    diff = get(service, f"/{finished}/diff/{other}")
    before, after = get(service, f"/{finished}"), get(service, f"/{other}")
    assert diff["score"]["difference"]["examples"] == 10
    expected = after["test_score"] - before["test_score"]
    assert diff["score"]["difference"]["estimate"] == pytest.approx(expected)
    assert diff["score"]["difference"]["low"] <= expected <= diff["score"]["difference"]["high"]
    assert diff["cost_difference"] == pytest.approx(after["predicted_cost"] - before["predicted_cost"])
    changed = {stage["stage"]: stage["changed"] for stage in diff["stages"]}
    for stage, fields in changed.items():
        one, two = before["allocation"][stage], after["allocation"][stage]
        assert fields == [key for key in ("model", "strategy", "samples") if one[key] != two[key]]
    same = get(service, f"/{finished}/diff/{finished}")
    assert same["same"]
    assert same["score"]["difference"]["estimate"] == 0


def test_plans_on_other_examples_are_not_compared(service: Service, finished: str) -> None:
    spec = tiny_spec(name="elsewhere")
    for row in spec["data"]["rows"]:
        row["question"] = f"{row['question']} w77"
    spec["budget"]["search"]["trials"] = 2
    study = str(ended(service, submit(service, spec))["id"])
    diff = get(service, f"/{finished}/diff/{study}")
    assert diff["score"] is None
    assert diff["not_comparable"] == "the studies have no test example in common"
