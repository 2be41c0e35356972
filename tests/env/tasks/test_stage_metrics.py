"""What a stage should answer, where the data says so."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from api.demo import demo_spec
from env.spec.check import check_study
from env.spec.stage import StageSpec
from env.tasks.data import load_splits
from env.tasks.example import Example, JsonValue
from env.tasks.metrics import stage_answers
from tests.simulated import simulated_spec


def stage(**changes: Any) -> StageSpec:
    raw = {
        "name": "find",
        "prompt": [{"role": "user", "template": "x"}],
        "models": ["m"],
        "tokens": {"prompt": 1, "output": 1},
        "metric": "exact_match",
        **changes,
    }
    return StageSpec.model_validate(raw)


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        ("text", "Paris", ("Paris",)),
        ("text", 7, ("7",)),
        ("text", ["Paris", "paris, France"], ("Paris", "paris, France")),
        ("ids", [3, 1], ("3 1",)),
        ("ids", [[1, 3], [2]], ("1 3", "2")),
        ("text", None, ()),
        ("ids", [], ()),
    ],
)
def test_a_gold_field_holds_one_or_several_accepted_answers(
    kind: str, value: JsonValue, accepted: tuple[str, ...]
) -> None:
    example = Example("e", {"right": value}, ("x",))
    parser = {"kind": kind, **({"prefix": "#"} if kind == "ids" else {})}
    assert stage_answers(stage(gold="right", parser=parser), example) == accepted


def test_without_a_field_the_examples_own_stage_gold_counts_as_one_answer() -> None:
    assert stage_answers(stage(), Example("e", {}, ("x",), {"find": [1, 2]})) == ("1 2",)
    assert stage_answers(stage(), Example("e", {}, ("x",))) == ()


def test_every_example_of_the_demo_says_what_its_scored_stages_should_answer() -> None:
    spec = demo_spec()
    scored = [s for s in spec.pipeline.stages if s.metric is not None]
    assert [s.name for s in scored] == ["retrieve", "read"]
    assert all(stage_answers(s, example) for s in scored for example in load_splits(spec.data).search[:20])


def test_gold_without_a_metric_is_refused() -> None:
    with pytest.raises(ValidationError, match="no metric to score it with"):
        stage(gold="right", metric=None)


@pytest.mark.parametrize(("gold", "field"), [("missing", "gold"), (None, "metric")])
def test_a_metric_that_no_example_has_gold_for_is_a_fault(gold: str | None, field: str) -> None:
    raw = simulated_spec().model_dump(mode="json")
    raw["pipeline"]["stages"][1].update(metric="f1", gold=gold)
    (fault,) = check_study(simulated_spec(pipeline=raw["pipeline"]))
    assert fault.path == f"pipeline.stages[1].{field}"
