"""Engine knobs open to a search: names of variants, what is refused, and what a study's spec becomes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from env.costs import CostOptions
from env.costs.profiles import model_profiles
from env.fleet.backend import FleetBackend
from env.fleet.errors import FleetError
from env.fleet.load import FleetFile, fleet_of, load_fleet
from env.fleet.picking import compare_variants
from env.fleet.planning import serve_line
from env.fleet.shared import SharedFleet
from env.fleet.tune import Workload
from env.fleet.variants import base_name, knobs_of, plan_file, variant_name, variants
from env.spec import SpecError
from env.spec.check import check_study
from env.spec.load import validated_spec
from env.spec.pipeline import FleetModel
from env.spec.variants import with_variants
from tests.env.fleet.fleets import light_fleet

SEARCH: dict[str, Any] = {
    "quantisation": [None, "fp8"],
    "max_num_seqs": [16, 64],
    "max_num_batched_tokens": [4096],
    "enable_prefix_caching": [True, False],
    "enable_chunked_prefill": [False],
}


def vllm_file(folder: Path, **changes: Any) -> FleetFile:
    program = folder / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    models = {
        "s": {"checkpoint": "embedded:s", "memory": "3GiB", "dtype": "float32", "search": SEARCH},
        "judge": {"checkpoint": "embedded:verifier", "memory": "3GiB", "runner": "pooling"},
    }
    raw = {"executable": "./vllm", "devices": [{"memory": "24GiB"}], "models": models} | changes
    file = fleet_of(raw, folder / "fleet.yaml")
    file.path.write_text(yaml.safe_dump(raw))
    return file


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FleetFile:
    found = vllm_file(tmp_path)
    monkeypatch.setenv("APPORTION_FLEET", str(found.path))
    return found


def study(model: dict[str, Any] | None = None, stage: dict[str, Any] | None = None, **models: Any) -> dict[str, Any]:
    return {
        "name": "v",
        "pipeline": {
            "name": "p",
            "models": {"small": {"backend": "fleet", "model": "s"} | (model or {})} | models,
            "stages": [
                {
                    "name": "solve",
                    "prompt": [{"role": "user", "template": "{{ question }}"}],
                    "models": ["small"],
                    "samples": {"min": 1, "max": 4},
                    "tokens": {"prompt": 8, "output": 8},
                }
                | (stage or {})
            ],
        },
        "data": {
            "source": "inline",
            "rows": [{"question": f"q{n}", "answer": "a"} for n in range(8)],
            "search": 4,
            "test": 4,
        },
        "budget": {"plan": {"limit": 1e12, "unit": "flops"}, "search": {"trials": 4}},
    }


def test_a_variants_name_states_its_knobs_and_its_command_line_has_them(file: FleetFile) -> None:
    found = variants(file, "s", ["max_num_seqs", "quantisation"])
    assert list(found) == ["s@plain.seqs16", "s@plain.seqs64", "s@fp8.seqs16", "s@fp8.seqs64"]
    assert found["s@fp8.seqs64"] == {"quantisation": "fp8", "max_num_seqs": 64}
    command = serve_line(file, "s@fp8.seqs64")
    assert "--quantization fp8" in command
    assert "--max-num-seqs 64" in command
    assert "--served-model-name s@fp8.seqs64" in command
    assert "--quantization" not in serve_line(file, "s@plain.seqs64")
    assert list(variants(file, "s@fp8", ["enable_prefix_caching"])) == ["s@fp8.cache", "s@fp8.nocache"]


@given(some.data())
def test_every_combination_of_listed_values_is_read_back_from_its_name(data: some.DataObject) -> None:
    models = fleet_of({"models": {"s": {"checkpoint": "embedded:s", "search": SEARCH}}}, Path("fleet.yaml")).spec.models
    chosen = data.draw(some.sets(some.sampled_from(sorted(SEARCH))))
    knobs = {knob: data.draw(some.sampled_from(SEARCH[knob])) for knob in sorted(chosen)}
    name = variant_name("s", knobs)
    assert base_name(name) == "s"
    assert knobs_of(models, name) == knobs


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("s@fp4", r"no variant 'fp4'; its search opens plain, fp8, seqs16"),
        ("s@fp8.plain", "one value a knob"),
        ("s@", "no variant ''"),
        ("z@fp8", "no model 'z@fp8'; there are s, judge"),
    ],
)
def test_a_variant_that_the_file_does_not_open_is_refused(file: FleetFile, name: str, words: str) -> None:
    with pytest.raises(FleetError, match=words):
        file.model(name)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"max_num_seqs": [4, 4]}, "listed twice"),
        ({"max_num_seqs": [0]}, "above 0"),
        ({"quantisation": ["fp.8"]}, "letters, digits"),
        ({"quantisation": [None, "plain"]}, "listed twice"),
    ],
)
def test_values_that_make_no_name_are_refused(tmp_path: Path, search: dict[str, Any], words: str) -> None:
    with pytest.raises(FleetError, match=words):
        vllm_file(tmp_path, models={"s": {"checkpoint": "embedded:s", "search": search}})


def test_the_torch_engine_opens_only_what_it_has(tmp_path: Path) -> None:
    models = {"s": {"checkpoint": "embedded:s", "search": {"quantisation": ["fp8"]}}}
    with pytest.raises(FleetError, match=r"models\.s\.quantisation: the torch engine has no such knob"):
        fleet_of({"engine": "torch", "models": models}, tmp_path / "fleet.yaml")


def test_variants_that_answer_alike_share_an_identity_and_others_do_not(file: FleetFile) -> None:
    fleet = SharedFleet(file)

    def identity(name: str) -> object:
        return FleetBackend(file, FleetModel(backend="fleet", model=name), fleet).identity

    assert identity("s") == identity("s@seqs64") == identity("s@plain.seqs16.nocache")
    assert identity("s@fp8") == identity("s@fp8.seqs64")
    assert identity("s@fp8") != identity("s")
    fleet.close()


@pytest.mark.usefixtures("file")
def test_answer_knobs_become_candidates_and_speed_knobs_stay_open() -> None:
    spec = validated_spec(study({"open": ["quantisation", "max_num_seqs"]}))
    assert spec.pipeline.stages[0].models == ("small@plain", "small@fp8")
    assert sorted(spec.pipeline.models) == ["small@fp8", "small@plain"]
    fp8 = spec.pipeline.models["small@fp8"]
    assert isinstance(fp8, FleetModel)
    assert (fp8.model, fp8.open) == ("s@fp8", ("max_num_seqs",))
    assert with_variants(spec) == spec, "a stored spec stays as it is"
    assert validated_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.usefixtures("file")
def test_a_model_that_is_a_critic_too_stays_as_the_file_states_it() -> None:
    spec = validated_spec(study({"open": ["quantisation"]}, {"critic": "small", "strategies": ["vote", "fuse"]}))
    assert sorted(spec.pipeline.models) == ["small", "small@fp8", "small@plain"]
    assert spec.pipeline.stages[0].models == ("small@plain", "small@fp8")


@pytest.mark.usefixtures("file")
def test_a_quantised_variant_has_its_own_bytes_in_the_cost_model() -> None:
    profiles = model_profiles(validated_spec(study({"open": ["quantisation"]})).pipeline, CostOptions())
    assert profiles["small@fp8"].quantisation.weights_bits == 8
    assert profiles["small@plain"].quantisation.weights_bits > 8
    assert profiles["small@fp8"].active == profiles["small@plain"].active


@pytest.mark.parametrize(
    ("model", "stage", "others", "field", "words"),
    [
        (
            {"open": ["enable_chunked_prefill"], "model": "judge", "api": "classify"},
            {},
            {},
            "models.small.open",
            "verifier",
        ),
        ({"model": "judge"}, {}, {}, "models.small.api", "classify, pooling, score or reward"),
        ({"api": "classify"}, {}, {}, "models.small.api", "chat or completions"),
        (
            {},
            {"verifier": "v", "strategies": ["vote", "beam"], "step_end": ";", "samples": {"min": 2, "max": 4}},
            {"v": {"backend": "fleet", "model": "judge", "api": "score"}},
            "stages[0].verifier",
            "cross-encoder",
        ),
        ({}, {"verifier": "v"}, {"v": {"backend": "fleet", "model": "s"}}, "stages[0].verifier", "score or reward"),
        (
            {},
            {"models": ["v"]},
            {"v": {"backend": "fleet", "model": "judge", "api": "reward"}},
            "models[0]",
            "draws no text",
        ),
        (
            {"open": ["quantisation"]},
            {},
            {"small@fp8": {"backend": "fleet", "model": "s"}},
            "models.small@fp8",
            "rename",
        ),
    ],
)
@pytest.mark.usefixtures("file")
def test_faults_of_fleet_models_are_named_with_their_field(
    model: dict[str, Any], stage: dict[str, Any], others: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        validated_spec(study(model, stage, **others))
    assert any(field in fault.path and words in fault.message for fault in caught.value.faults), caught.value.faults


def test_a_knob_whose_values_the_file_does_not_list_says_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = vllm_file(tmp_path, models={"s": {"checkpoint": "embedded:s", "memory": "3GiB"}})
    monkeypatch.setenv("APPORTION_FLEET", str(found.path))
    for knob in ("quantisation", "max_num_seqs"):
        with pytest.raises(SpecError, match=rf"list values under models\.s\.search\.{knob}"):
            validated_spec(study({"open": [knob]}))


@pytest.mark.usefixtures("file")
def test_a_fleet_verifier_is_no_fault() -> None:
    verifier = {"backend": "fleet", "model": "judge", "api": "classify"}
    spec = validated_spec(study({}, {"verifier": "v", "strategies": ["vote", "best_of_n"]}, v=verifier))
    assert check_study(spec) == []


def test_the_plans_fleet_file_serves_its_variants_and_nothing_else(file: FleetFile, tmp_path: Path) -> None:
    elsewhere = tmp_path / "plan" / "fleet.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(yaml.safe_dump(plan_file(file, ["s@fp8.seqs64", "judge"]), sort_keys=False))
    served = load_fleet(elsewhere)
    assert list(served.spec.models) == ["s", "judge"]
    one = served.model("s")
    assert (one.quantisation, one.max_num_seqs, one.search.grid()) == ("fp8", 64, [{}])
    ours, theirs = serve_line(file, "s@fp8.seqs64"), serve_line(served, "s")
    assert theirs == ours.replace("s@fp8.seqs64", "s")
    assert list(plan_file(file, ["s@fp8", "s@plain"])["models"]) == ["s-fp8", "s-plain"]
    with pytest.raises(FleetError, match="no model 'gone'"):
        plan_file(file, ["gone"])


@pytest.mark.fleet
@pytest.mark.asyncio
async def test_where_no_variant_starts_the_comparison_says_why_of_each(tmp_path: Path) -> None:
    models = {
        "s": {"checkpoint": "embedded:s", "memory": "1GiB", "overhead": "600MiB", "search": {"max_num_seqs": [1, 2]}}
    }
    broken = [sys.executable, "-c", "raise SystemExit('no such flag')"]
    file = light_fleet(tmp_path, models=models, executable=broken)
    fleet = SharedFleet(file)
    with pytest.raises(FleetError, match=r"(?s)no variant could be measured.*s@seqs1: .*s@seqs2: "):
        await compare_variants(file, fleet, variants(file, "s", ["max_num_seqs"]), Workload(2, 1, 1, 8))
    with pytest.raises(FleetError, match="do not fit the context"):
        await compare_variants(file, fleet, variants(file, "s", ["max_num_seqs"]), Workload(prompt_tokens=10**6))
    fleet.close()


def test_a_verifier_is_started_with_vllms_pooling_runner(tmp_path: Path) -> None:
    models = {
        "judge": {"checkpoint": "embedded:verifier", "memory": "3GiB", "runner": "pooling", "convert": "classify"}
    }
    command = serve_line(vllm_file(tmp_path, models=models), "judge")
    assert "--runner pooling" in command
    assert "--convert classify" in command
    with pytest.raises(FleetError, match="set runner: pooling"):
        vllm_file(tmp_path, models={"j": {"checkpoint": "embedded:verifier", "convert": "classify"}})
