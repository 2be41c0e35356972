"""Idealized runtime: rooflines by hand and by walking through tokens; energy and money on top."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.costs import CostDataError, CostOptions, ModelProfile, StageTokens, cost_model
from env.costs.accelerators import accelerator, accelerators, precision_of
from env.costs.runtime import RuntimeCost, accelerators_needed
from env.spec.architecture import Price, Quantisation
from tests.env.costs.models import everything, profile, profiles
from tests.env.costs.stepwise import Stepwise

H100 = CostOptions(accelerator="h100-sxm")


@settings(max_examples=40, deadline=None)
@given(
    profiles,
    st.builds(StageTokens, st.integers(0, 40), st.integers(0, 20), st.integers(1, 4), prompts=st.integers(1, 2)),
    st.booleans(),
    st.sampled_from([None, 1, 16]),
    st.sampled_from([1, 4]),
    st.sampled_from(["h100-sxm", "l4", "cpu-2core"]),
)
def test_runtime_is_a_roofline_over_prompt_and_decoding(
    model: ModelProfile, tokens: StageTokens, shared: bool, batch: int | None, degree: int, device: str
) -> None:
    how = CostOptions(prompt_shared=shared, batch_size=batch, accelerator=device, tensor_parallel=degree)
    peak = accelerators()[device].peak_tflops[precision_of(how)] * 1e12 * degree
    bandwidth = accelerators()[device].bandwidth_gbps * 1e9 * degree
    walk = Stepwise(model, batch or 1)
    seconds = 0.0
    for _ in range(tokens.prompts):
        for sample in range(tokens.samples):
            if sample == 0 or not shared:
                prompt = walk.prompt(int(tokens.prompt))
                seconds += max(prompt.flops / peak, prompt.bytes / bandwidth)
            alone = walk.samples(int(tokens.prompt), int(tokens.output), 1, shared=False)
            seconds += max(alone.flops / peak, alone.bytes / bandwidth)
    assert RuntimeCost(how).stage_cost(model, tokens) == pytest.approx(seconds, rel=1e-9)


def test_decoding_alone_is_bound_by_reading_the_weights() -> None:
    model = profile("llama-3.1-8b")
    read = (model.total - 128256 * 4096) * 2  # the input embedding is looked up, not read
    short = RuntimeCost(H100).stage_cost(model, StageTokens(0, 1, 1))
    assert short == pytest.approx(read / 3.35e12, rel=1e-4)


def test_a_long_prompt_is_bound_by_arithmetic() -> None:
    model = profile("llama-3.1-8b")
    attention = 4 * 32 * 128 * 32 * (8192 * 8193 / 2)
    seconds = RuntimeCost(H100).stage_cost(model, StageTokens(8192, 0, 1))
    assert seconds == pytest.approx((2 * model.active * 8192 + attention) / 989.4e12)


def test_a_batch_shares_the_weights_until_arithmetic_binds() -> None:
    model, tokens = profile("llama-3.1-8b"), StageTokens(128, 256, 1)
    costs = [RuntimeCost(replace(H100, batch_size=b)).stage_cost(model, tokens) for b in (1, 8, 4096, 65536)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] / costs[1] == pytest.approx(8, rel=0.05)
    assert costs[2] / costs[3] == pytest.approx(1)


def test_few_tokens_of_a_mixture_read_few_experts() -> None:
    mixture, tokens = profile("qwen3-30b-a3b"), StageTokens(0, 1, 1)
    alone = RuntimeCost(H100).stage_cost(mixture, tokens)
    assert alone == pytest.approx((mixture.active - 151936 * 2048) * 2 / 3.35e12, rel=0.01)
    crowd = RuntimeCost(replace(H100, batch_size=64)).stage_cost(mixture, tokens)
    assert crowd * 64 > 7 * alone


@pytest.mark.parametrize(
    ("name", "device", "bits", "needed"),
    [
        ("llama-3.1-8b", "h100-sxm", 16, 1),
        ("llama-3.1-70b", "h100-sxm", 16, 2),
        ("llama-3.1-70b", "h200", 16, 2),
        ("llama-3.1-70b", "h100-sxm", 8, 1),
        ("llama-3.1-405b", "h100-sxm", 16, 16),
        ("deepseek-v3", "h200", 8, 8),
        ("gpt-oss-120b", "h100-sxm", None, 1),
    ],
)
def test_a_model_takes_as_few_accelerators_as_hold_its_weights(
    name: str, device: str, bits: int | None, needed: int
) -> None:
    model = profile(name, None if bits is None else Quantisation(weights_bits=bits))
    assert accelerators_needed(model, CostOptions(accelerator=device)) == needed


def test_more_accelerators_are_faster_and_never_cheaper() -> None:
    model, tokens = profile("llama-3.1-70b"), StageTokens(1024, 128, 2)
    two, eight = (replace(H100, tensor_parallel=n) for n in (2, 8))
    assert RuntimeCost(eight).stage_cost(model, tokens) == pytest.approx(RuntimeCost(two).stage_cost(model, tokens) / 4)
    busy = [cost_model("accelerator_seconds", how).stage_cost(model, tokens) for how in (two, eight)]
    assert busy[0] == pytest.approx(busy[1])
    assert busy[0] == pytest.approx(2 * RuntimeCost(two).stage_cost(model, tokens))


@pytest.mark.parametrize(
    ("how", "field", "words"),
    [
        (CostOptions(), "accelerator", "h100-sxm"),
        (CostOptions(accelerator="h1000"), "accelerator", "no accelerator 'h1000'"),
        (CostOptions(accelerator="a100-80", precision="fp8"), "precision", "it has fp32, tf32, bf16, int8"),
        (CostOptions(accelerator="l4", tensor_parallel=1), "tensor_parallel", "take 141.1 GB and 1 x l4 hold 24 GB"),
    ],
)
def test_what_is_wrong_with_the_machine_is_told_by_field(how: CostOptions, field: str, words: str) -> None:
    model = profile("llama-3.1-70b")
    for unit in ("runtime", "accelerator_seconds", "joules"):
        (lack,) = cost_model(unit, how).lacks(model)  # type: ignore[arg-type]
        assert (lack.subject, lack.field) == ("plan", field)
        assert words in lack.message
    with pytest.raises(CostDataError):
        accelerator("h1000")


def test_every_accelerator_names_its_source_and_has_sane_rates() -> None:
    for name, device in accelerators().items():
        assert device.source
        rates = device.peak_tflops
        assert rates.get("fp32", 0) <= rates.get("bf16", float("inf")), name
        assert 1 < max(rates.values()) * 1e12 / device.bytes_per_second < 2000, name
    assert accelerators()["cpu-2core"].assumption


def test_energy_is_power_over_busy_accelerators() -> None:
    model, tokens = profile("llama-3.1-70b"), StageTokens(1024, 128, 2)
    how = CostOptions(accelerator="h100-sxm", power_fraction=0.6, pue=1.2)
    busy = cost_model("accelerator_seconds", how).stage_cost(model, tokens)
    assert cost_model("joules", how).stage_cost(model, tokens) == pytest.approx(busy * 700 * 0.6 * 1.2)


def test_energy_needs_a_published_power() -> None:
    (lack,) = cost_model("joules", CostOptions(accelerator="tpu-v5e")).lacks(profile("gemma-2-2b"))
    assert (lack.field, "no rated power" in lack.message) == ("accelerator", True)


def test_money_bills_a_shared_prompt_once_and_a_repeated_one_at_the_cached_price() -> None:
    tokens = StageTokens(1000, 100, 4)
    shared, separate = cost_model("dollars"), cost_model("dollars", CostOptions(prompt_shared=False))
    assert shared.stage_cost(profile(), tokens) == pytest.approx((1000 * 0.5 + 400 * 2.0) / 1e6)
    assert separate.stage_cost(profile(), tokens) == pytest.approx((1000 * (0.5 + 3 * 0.1) + 400 * 2.0) / 1e6)
    uncached = replace(profile(), price=Price(input=0.5, output=2.0))
    assert separate.stage_cost(uncached, tokens) == pytest.approx((4000 * 0.5 + 400 * 2.0) / 1e6)


def test_seconds_are_idealized_ones_times_the_calibration() -> None:
    tokens = StageTokens(100, 10, 2)
    ideal = cost_model("runtime", everything()).stage_cost(profile(), tokens)
    assert cost_model("seconds", everything(calibration=2.5)).stage_cost(profile(), tokens) == pytest.approx(
        2.5 * ideal
    )
    (lack,) = cost_model("seconds", everything(calibration=None)).lacks(profile())
    assert (lack.subject, lack.field) == ("plan", "calibration")
