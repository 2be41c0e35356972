"""One allocation in every unit, and the command that prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from env.allocation import Allocation, StageSetting
from env.calls import Call
from env.costs import UNITS, CostOptions, Ladder, PlanCost, ladder
from env.costs.__main__ import main
from env.costs.catalogue import catalogue
from env.embedded import checkpoint_path
from env.spec.pipeline import PipelineSpec
from tests.env.costs.models import everything
from tests.simulated import simulated_spec

MODELS = {"find": "small", "read": "large", "solve": "small"}


def used(prompt: int = 20) -> dict[str, tuple[Call, ...]]:
    return {stage: (Call(model, prompt, 10, 2),) for stage, model in MODELS.items()}


USED = used()


def pipeline(**of_each_model: Any) -> PipelineSpec:
    raw = simulated_spec().pipeline.model_dump(mode="json")
    for model in raw["models"].values():
        model.update(of_each_model)
    return PipelineSpec.model_validate(raw)


def allocation(last: str = "vote") -> Allocation:
    return Allocation.of(
        {
            "find": StageSetting("small", "vote", 2),
            "read": StageSetting("large", "vote", 2),
            "solve": StageSetting("small", last, 2),
        }
    )


def test_only_units_with_their_data_are_in_the_ladder() -> None:
    assert set(ladder(pipeline(), allocation(), USED)) == {"flops", "agenttts", "tokens"}
    known = {"architecture": "qwen3-0.6b", "parameters": None}
    assert "eflops" in ladder(pipeline(**known), allocation(), USED)
    priced = pipeline(**known, price={"input": 1, "output": 2})
    assert set(ladder(priced, allocation(), USED, everything())) == set(UNITS)


@pytest.mark.parametrize("last", ["vote", "best_of_n"])
def test_each_rung_is_what_a_plan_in_that_unit_would_cost(last: str) -> None:
    priced = pipeline(architecture="qwen3-0.6b", parameters=None, price={"input": 1, "output": 2})
    judged = (Call("judge", 30, 0, 0, 2),) if last == "best_of_n" else ()
    rungs = ladder(priced, allocation(last), {**USED, "solve": (*USED["solve"], *judged)}, everything())
    for unit, cost in rungs.items():
        plan = PlanCost(priced, unit, everything())
        by_stage = [plan.stage(priced.stage(name), setting) for name, setting in allocation(last).settings]
        assert cost == pytest.approx(sum(by_stage)), unit
        assert cost == pytest.approx(plan.allocation(allocation(last))), unit


def test_queries_are_priced_one_by_one_and_then_averaged() -> None:
    known = Ladder(pipeline(architecture="qwen3-0.6b", parameters=None))
    short, long, middle = used(10), used(4000), used(2005)
    mean, at_mean = known.mean(allocation(), [short, long]), known.of(allocation(), middle)
    assert mean["flops"] == pytest.approx(at_mean["flops"])
    assert mean["eflops"] > at_mean["eflops"] * 1.01
    assert known.mean(allocation(), []) == {}


def test_measured_seconds_stand_in_for_predicted_ones() -> None:
    known = Ladder(pipeline(architecture="qwen3-0.6b", parameters=None), everything())
    assert known.mean(allocation(), [USED], seconds=1.25)["seconds"] == 1.25
    assert "seconds" not in known.mean(allocation(), [USED])
    assert known.of(allocation())["seconds"] > 0


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(arguments)
    out = capsys.readouterr()
    return status, out.out, out.err


def test_the_command_prints_what_the_cost_models_say(capsys: pytest.CaptureFixture[str]) -> None:
    line = "qwen3-8b --prompt 100 --output 20 --samples 3 --accelerator l4 --price 1,2,0.5 --calibration 2 --json"
    status, out, _ = said(capsys, *line.split())
    (model,) = json.loads(out)["models"]
    assert status == 0
    assert set(model["costs"]) == set(UNITS)
    assert model["costs"]["flops"] == 2 * model["active"] * (100 + 3 * 20)
    assert model["costs"]["dollars"] == pytest.approx((100 + 2 * 60) / 1e6)
    assert model["costs"]["seconds"] == pytest.approx(2 * model["costs"]["runtime"])


def test_the_command_reads_checkpoints_and_says_what_a_unit_needs(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, str(checkpoint_path("m")))
    assert status == 0
    assert "eFLOPs" in out
    assert "runtime needs accelerator: name the accelerator" in out


def test_the_command_lists_what_it_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert [row["model"] for row in json.loads(said(capsys, "--catalogue", "--json")[1])] == list(catalogue())
    assert "h100-sxm" in said(capsys, "--accelerators")[1]


@pytest.mark.parametrize("arguments", [(), ("no-such-model",)])
def test_the_command_explains_what_it_cannot_do(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    status, out, err = said(capsys, *arguments)
    assert (status, out) == (2, "")
    assert "catalogue" in err


DOCUMENT = Path(__file__).parents[3] / "docs" / "costs.md"


def documented() -> list[tuple[str, str]]:
    """Commands of the document and what it says they print."""
    blocks = DOCUMENT.read_text(encoding="utf-8").split("```console\n$ python -m env.costs ")[1:]
    return [(b.partition("\n")[0], b.partition("\n")[2].partition("```")[0]) for b in blocks]


@pytest.mark.parametrize(("line", "printed"), documented(), ids=[line for line, _ in documented()])
def test_the_document_shows_what_its_commands_print(
    capsys: pytest.CaptureFixture[str], line: str, printed: str
) -> None:
    assert said(capsys, *line.split())[1] == printed


def test_options_come_from_the_plan_budget_field_by_field() -> None:
    plan = simulated_spec().budget.plan
    assert CostOptions.of(plan) == CostOptions()
    changed = plan.model_copy(update={"accelerator": "l4", "pue": 1.3, "prompt_shared": False})
    assert CostOptions.of(changed) == CostOptions(accelerator="l4", pue=1.3, prompt_shared=False)
