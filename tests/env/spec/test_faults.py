"""Every kind of wrong spec: one clear message per fault, with the field's path."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from env.spec import SpecError, StudySpec
from env.spec.load import load_spec, parse_spec, spec_schema, spec_yaml, validated_spec
from tests.simulated import simulated_spec


def faults(change: Callable[[dict[str, Any]], None]) -> dict[str, str]:
    raw = copy.deepcopy(simulated_spec().model_dump(mode="json"))
    change(raw)
    with pytest.raises(SpecError) as caught:
        validated_spec(raw)
    return {fault.path: fault.message for fault in caught.value.faults}


def stage(raw: dict[str, Any], position: int) -> dict[str, Any]:
    found: dict[str, Any] = raw["pipeline"]["stages"][position]
    return found


def test_a_sound_spec_has_no_faults() -> None:
    assert validated_spec(simulated_spec().model_dump(mode="json")) == simulated_spec()


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (lambda r: stage(r, 1)["models"].append("huge"), "pipeline.stages[1].models[2]", "no model 'huge'"),
        (
            lambda r: stage(r, 0)["prompt"][1].update(template="{{ solve }}"),
            "pipeline.stages[0].prompt[1].template",
            "that stage does not come earlier",
        ),
        (
            lambda r: stage(r, 2)["prompt"][1].update(template="{{ nothing }}"),
            "pipeline.stages[2].prompt[1].template",
            "nothing supplies it",
        ),
        (
            lambda r: stage(r, 1)["prompt"][0].update(template="{% for %}"),
            "pipeline.stages[1].prompt[0].template",
            "does not parse (line 1)",
        ),
        (lambda r: stage(r, 0)["samples"].update(max=2), "pipeline.stages[0].samples", "outside 1..2"),
        (lambda r: stage(r, 0)["samples"].update(min=0, choices=None), "pipeline.stages[0].samples.min", "greater"),
        (lambda r: stage(r, 2).update(verifier=None), "pipeline.stages[2].verifier", "best_of_n needs a verifier"),
        (lambda r: stage(r, 2).update(verifier="nobody"), "pipeline.stages[2].verifier", "no model 'nobody'"),
        (lambda r: stage(r, 0).update(strategies=["union"]), "pipeline.stages[0].strategies[0]", "sets of ids"),
        (lambda r: stage(r, 1).update(name="find"), "pipeline.stages[1].name", "two stages called"),
        (lambda r: stage(r, 0).update(name="question"), "pipeline.stages[0].name", "field 'question' too"),
        (
            lambda r: stage(r, 0).update(parser={"kind": "regex", "pattern": "("}),
            "pipeline.stages[0].parser.pattern",
            "not a regular",
        ),
        (lambda r: r["data"].update(rows=[]), "data.rows", "at least 1"),
        (lambda r: r["data"].update(rows=[{"answer": "a"}]), "data.rows", "has one row"),
        (lambda r: r["budget"]["plan"].update(limit=1.0), "budget.plan.limit", "below the cheapest allocation"),
        (lambda r: r["budget"]["plan"].update(limit=-1), "budget.plan.limit", "greater than 0"),
        (lambda r: r["budget"]["plan"].update(unit="euros"), "budget.plan.unit", "'flops'"),
        (lambda r: r.update(colour="red"), "colour", "unknown field"),
        (lambda r: r.pop("data"), "data", "is required"),
        (
            lambda r: r["pipeline"]["models"]["small"].update(api_key_env="SURELY_NOT_SET"),
            "pipeline.models.small.api_key_env",
            "SURELY_NOT_SET is not set",
        ),
        (
            lambda r: r["pipeline"]["models"].update(small={"backend": "torch", "checkpoint": "embedded:giant"}),
            "pipeline.models.small.checkpoint",
            "no embedded model 'giant'",
        ),
        (
            lambda r: r["pipeline"]["models"].update(small={"backend": "torch", "checkpoint": "../x"}),
            "pipeline.models.small.checkpoint",
            "outside the data root",
        ),
        (
            lambda r: r["pipeline"]["models"]["large"].update(timeout_s=0),
            "pipeline.models.large.timeout_s",
            "greater than 0",
        ),
    ],
)
def test_a_fault_names_its_field(change: Callable[[dict[str, Any]], None], path: str, words: str) -> None:
    found = faults(change)
    assert path in found
    assert words in found[path]


def test_all_faults_are_told_at_once() -> None:
    def change(raw: dict[str, Any]) -> None:
        stage(raw, 0)["models"] = ["nobody"]
        stage(raw, 1)["prompt"][1]["template"] = "{{ missing }}"
        stage(raw, 2)["verifier"] = None

    assert len(faults(change)) == 3


def test_yaml_and_json_and_files_read_alike(tmp_path: Path) -> None:
    spec = simulated_spec()
    path = tmp_path / "study.yaml"
    path.write_text(spec_yaml(spec))
    assert load_spec(path) == spec
    assert parse_spec(spec.model_dump_json()) == spec


@pytest.mark.parametrize("text", ["a: [", "{", "- 1", "", "plain"])
def test_what_is_no_spec_at_all_is_explained(text: str) -> None:
    with pytest.raises(SpecError):
        parse_spec(text)


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read"):
        load_spec(tmp_path / "none.yaml")


def test_the_exported_schema_accepts_what_the_model_accepts() -> None:
    validator = jsonschema.Draft202012Validator(spec_schema())
    good = json.loads(simulated_spec().model_dump_json())
    assert validator.is_valid(good)
    assert not validator.is_valid({**good, "colour": "red"})
    assert StudySpec.model_validate(yaml.safe_load(yaml.safe_dump(good))) == simulated_spec()
