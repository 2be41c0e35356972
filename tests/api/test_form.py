"""The study form: made from the model, filled from a spec, read back into the same spec."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from api.pages.form_fields import FormField, fields_of, study_form
from api.pages.form_values import checked_spec, filled, place
from api.routes.spec_bodies import demo_data
from env.spec import Fault, SpecError, StudySpec
from env.spec.load import validated_spec
from env.spec.study import CostUnit
from tests.api.service import Service, tiny_spec

Texts = dict[str, str]


@pytest.fixture
def texts(service: Service) -> Texts:
    """The form filled with the tiny study; the service is there for the data root."""
    return filled(study_form(), tiny_spec())


def control(path: str) -> FormField:
    return next(field for field in fields_of(study_form()) if field.path == path)


def faults(texts: Texts) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        checked_spec(study_form(), texts)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_every_field_of_the_model_is_in_the_form() -> None:
    paths = {field.path for field in fields_of(study_form())}
    for name in StudySpec.model_fields:
        assert name == "version" or any(path == name or path.startswith(f"{name}.") for path in paths), name
    assert {"data.source", "data.rows", "data.path", "budget.plan.limit", "budget.search.draws"} <= paths


def test_labels_help_ranges_and_choices_come_from_the_model() -> None:
    trials = control("budget.search.trials")
    assert (trials.label, trials.kind, trials.default) == ("Trials", "whole", 24)
    assert "1 to 100,000" in trials.help
    assert control("budget.plan.unit").choices == get_args(CostUnit)
    assert control("name").required
    assert control("budget.search.draws").nullable
    sealed = next(field for field in fields_of(study_form()) if field.name == "data@ledger.test")
    assert "Sealed" in sealed.help
    assert control("pipeline").kind == "yaml"


def test_a_spec_survives_the_form(texts: Texts) -> None:
    assert checked_spec(study_form(), texts) == validated_spec(tiny_spec())


def test_the_demo_fills_the_form() -> None:
    values = filled(study_form(), demo_data())
    assert values["name"] == "ledger-demo"
    assert values["data.source"] == "ledger"
    assert float(values["budget.plan.limit"]) == float(demo_data()["budget"]["plan"]["limit"])
    assert "00000" not in values["budget.plan.limit"]
    assert "stages:" in values["pipeline"]


def test_an_empty_optional_field_takes_its_default(texts: Texts) -> None:
    assert checked_spec(study_form(), {**texts, "budget.search.trials": "", "seed": ""}).budget.search.trials == 24


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("name", "", "name"),
        ("name", "no spaces", "name"),
        ("budget.plan.limit", "", "budget.plan.limit"),
        ("budget.plan.limit", "plenty", "budget.plan.limit"),
        ("budget.plan.limit", "inf", "budget.plan.limit"),
        ("budget.search.trials", "0", "budget.search.trials"),
        ("pipeline", "stages: [", "pipeline"),
        ("pipeline", "", "pipeline"),
        ("data.source", "", "data"),
        ("data@inline.rows", "[]", "data.rows"),
        ("data@inline.rows", "- {question: 2024-01-01, answer: x}", "data.rows[0].question"),
        ("seed", "1.5", "seed"),
    ],
)
def test_a_wrong_entry_is_a_fault_of_its_own_field_alone(texts: Texts, name: str, text: str, path: str) -> None:
    assert set(faults({**texts, name: text})) == {path}


def test_faults_of_several_fields_come_together(texts: Texts) -> None:
    found = faults({**texts, "name": "", "pipeline": "stages: [", "seed": "x"})
    assert set(found) == {"name", "pipeline", "seed"}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("pipeline.stages[0].models[1]", "field-pipeline"),
        ("budget.plan.limit", "field-budget-plan-limit"),
        ("budget", "group-budget"),
        ("data", "group-data"),
        ("data.rows[3].answer", "field-data-inline-rows"),
        ("", ""),
    ],
)
def test_a_fault_stands_beside_the_nearest_field(texts: Texts, path: str, target: str) -> None:
    placed = place(study_form(), [Fault(path, "wrong")], texts)
    assert placed.summary == ((target, Fault(path, "wrong")),)
    assert list(placed.by_id) == ([target] if target else [])


def post(service: Service, page: str, values: dict[str, Any]) -> Any:
    service.http.get(page)
    token = service.http.cookies["apportion_form"]
    return service.http.post(page, data={**values, "form_token": token})


def test_a_good_form_leads_to_the_study(service: Service, texts: Texts) -> None:
    answer = post(service, "/studies/new", {**texts, "name": "from-a-form"})
    assert answer.status_code == 303
    assert "from-a-form" in service.http.get(answer.headers["location"]).text


def test_a_faulty_form_comes_back_with_its_entries_and_queues_nothing(service: Service, texts: Texts) -> None:
    answer = post(service, "/studies/new", {**texts, "name": "kept-entry", "budget.plan.limit": "1"})
    assert answer.status_code == 422
    assert "kept-entry" in answer.text
    assert "is below the cheapest allocation" in answer.text
    assert 'href="#field-budget-plan-limit"' in answer.text
    assert service.http.get("/api/v1/studies", params={"name": "kept-entry"}).json()["items"] == []


def test_what_a_form_or_a_data_set_says_is_escaped(service: Service, texts: Texts) -> None:
    evil = "</textarea><script>alert(1)</script>"
    answer = post(service, "/studies/new", {**texts, "name": evil, "description": evil, "pipeline": evil})
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text


def test_a_schedule_is_entered_and_deleted_by_form(service: Service) -> None:
    good = {"name": "by-form", "cron": "0 0 1 1 *", "timezone": "UTC", "spec": str(tiny_spec())}
    bad = post(service, "/schedules", {**good, "cron": "never", "timezone": "Nowhere"})
    assert bad.status_code == 422
    assert "Nowhere" in bad.text
    assert post(service, "/schedules", good).status_code == 303
    assert "by-form" in service.http.get("/schedules").text
    token = service.http.cookies["apportion_form"]
    answer = service.http.post("/schedules/by-form/delete", data={"form_token": token})
    assert answer.status_code == 303
    assert "by-form" not in service.http.get("/schedules").text
