"""What a unit of the budget needs and a spec does not say is a fault of a named field, before anything is queued."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from env.costs import UNITS
from env.spec import SpecError
from env.spec.load import parse_spec, spec_yaml, validated_spec
from tests.simulated import simulated_spec

NUMBERS = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "inner": 128, "vocab": 500}


def raw(plan: dict[str, Any], **of_each_model: Any) -> dict[str, Any]:
    spec = copy.deepcopy(simulated_spec().model_dump(mode="json"))
    spec["budget"]["plan"] = {"limit": 1e30, **plan}
    for model in spec["pipeline"]["models"].values():
        model.update(of_each_model)
    return spec


def faults(spec: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        validated_spec(spec)
    return {fault.path: fault.message for fault in caught.value.faults}


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_can_be_a_budget(unit: str) -> None:
    plan = {"unit": unit, "accelerator": "l4", "calibration": 2.0}
    spec = validated_spec(
        raw(plan, architecture="qwen3-0.6b", parameters=None, price={"input": 1, "output": 2, "cached_input": 0.1})
    )
    assert parse_spec(spec_yaml(spec)) == spec


@pytest.mark.parametrize("unit", ["eflops", "runtime", "joules"])
def test_a_unit_that_needs_an_architecture_names_every_model_without_one(unit: str) -> None:
    found = faults(raw({"unit": unit, "accelerator": "l4"}))
    assert set(found) == {f"pipeline.models.{name}.architecture" for name in ("small", "large", "judge")}
    assert "--catalogue" in found["pipeline.models.small.architecture"]


def test_money_needs_a_price_of_every_model() -> None:
    spec = raw({"unit": "dollars"})
    spec["pipeline"]["models"]["small"]["price"] = {"input": 1, "output": 2}
    found = faults(spec)
    assert set(found) == {"pipeline.models.large.price", "pipeline.models.judge.price"}
    assert "budget.plan.prices" in found["pipeline.models.large.price"]


@pytest.mark.parametrize(
    ("plan", "path", "words"),
    [
        ({"unit": "runtime"}, "budget.plan.accelerator", "h100-sxm"),
        ({"unit": "runtime", "accelerator": "h1"}, "budget.plan.accelerator", "no accelerator 'h1'"),
        ({"unit": "runtime", "accelerator": "a10g", "precision": "fp8"}, "budget.plan.precision", "fp32"),
        ({"unit": "eflops", "accelerator": "h1"}, "budget.plan.accelerator", "no accelerator 'h1'"),
        ({"unit": "seconds", "accelerator": "l4"}, "budget.plan.calibration", "report"),
        ({"unit": "joules", "accelerator": "tpu-v5e"}, "budget.plan.accelerator", "no rated power"),
        ({"unit": "flops", "prices": "none.yaml"}, "budget.plan.prices", "cannot read the prices"),
        ({"unit": "flops", "prices": "../up.yaml"}, "budget.plan.prices", "outside the data root"),
        ({"unit": "flops", "pue": 0.5}, "budget.plan.pue", "greater than or equal to 1"),
        ({"unit": "flops", "precision": "bf17"}, "budget.plan.precision", "'bf16'"),
    ],
)
def test_a_fault_of_the_plan_names_its_field_once(plan: dict[str, Any], path: str, words: str) -> None:
    found = faults(raw(plan, architecture="qwen3-0.6b", parameters=None))
    assert set(found) == {path}
    assert words in found[path]


def test_a_model_too_large_for_the_machine_is_told() -> None:
    plan = {"unit": "runtime", "accelerator": "l4", "tensor_parallel": 2}
    found = faults(raw(plan, architecture="llama-3.1-70b", parameters=None))
    assert set(found) == {"budget.plan.tensor_parallel"}
    assert "141.1 GB and 2 x l4 hold 48 GB" in found["budget.plan.tensor_parallel"]


@pytest.mark.parametrize(
    ("of_each_model", "field", "words"),
    [
        ({"architecture": "qwen3-8"}, ".architecture", "near it are"),
        ({"architecture": {**NUMBERS, "kv_heads": 3}, "parameters": None}, ".architecture", "no multiple of kv_heads"),
        ({"architecture": {**NUMBERS, "layers": 0}}, ".architecture.layers", "greater than or equal to 1"),
        ({"architecture": {**NUMBERS, "colour": 1}}, ".architecture.colour", "unknown field"),
        ({"architecture": "llama-3.1-70b", "parameters": 8e9}, ".parameters", "has 7.055e+10 active"),
        ({"parameters": None}, "", "state parameters, or an architecture"),
        ({"price": {"input": 1}}, ".price.output", "is required"),
        ({"quantisation": {"weights_bits": 0}}, ".quantisation.weights_bits", "greater than 0"),
    ],
)
def test_a_fault_of_a_model_names_its_field(of_each_model: dict[str, Any], field: str, words: str) -> None:
    found = faults(raw({"unit": "flops"}, **of_each_model))
    path = f"pipeline.models.small{field}"
    assert path in found
    assert words in found[path]


def test_an_architecture_may_be_written_out_and_gives_the_parameters() -> None:
    spec = validated_spec(raw({"unit": "eflops"}, architecture=NUMBERS, parameters=None))
    architecture = spec.pipeline.models["small"].architecture
    assert not isinstance(architecture, str | None)
    assert architecture.head_dim == 16
    assert parse_spec(spec_yaml(spec)) == spec


def test_prices_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    table = tmp_path / "prices.yaml"
    table.write_text("small: {input: 1, output: 2}\nlarge: {input: 3, output: 4}\njudge: {input: 0, output: 0}\n")
    assert validated_spec(raw({"unit": "dollars", "prices": "prices.yaml"}))
    table.write_text("small: {input: 1}\n")
    found = faults(raw({"unit": "dollars", "prices": "prices.yaml"}))
    assert "small.output: is required" in found["budget.plan.prices"]
