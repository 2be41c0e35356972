"""Equivalent FLOPs against a count token by token, and against the paper's own equation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from env.costs import CostOptions, ModelProfile, StageTokens, cost_model
from env.costs.eflops import KINETICS_INTENSITY, EflopsCost
from env.costs.work import keys_attended
from env.spec.architecture import Architecture, Quantisation
from tests.env.costs.models import architectures, of, options, profile, profiles, quantisations, stage_tokens
from tests.env.costs.stepwise import Stepwise

FEW = settings(max_examples=40, deadline=None)


@FEW
@given(
    profiles,
    st.builds(StageTokens, st.integers(0, 40), st.integers(0, 20), st.integers(1, 5), prompts=st.integers(1, 2)),
    st.booleans(),
    st.sampled_from([None, 1, 3, 16]),
    st.floats(0.1, 1000),
)
def test_the_formula_is_the_count_over_decoded_tokens(
    model: ModelProfile, tokens: StageTokens, shared: bool, batch: int | None, intensity: float
) -> None:
    walk = Stepwise(model, batch)
    counted = 0.0
    for _ in range(tokens.prompts):
        for _ in range(1 if shared else tokens.samples):
            prompt = walk.prompt(int(tokens.prompt))
            counted += prompt.flops + intensity * prompt.bytes
        samples = walk.samples(int(tokens.prompt), int(tokens.output), tokens.samples, shared)
        counted += samples.flops + intensity * samples.bytes
    priced = EflopsCost(CostOptions(prompt_shared=shared, batch_size=batch, intensity=intensity))
    assert priced.stage_cost(model, tokens) == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize("name", ["qwen3-0.6b", "qwen3-8b", "qwen3-32b", "llama-3.1-70b"])
@pytest.mark.parametrize(("prompt", "output", "samples"), [(0, 4096, 1), (512, 8192, 1), (512, 8192, 16)])
def test_decoding_is_priced_as_in_the_paper(name: str, prompt: int, output: int, samples: int) -> None:
    # Equation of arXiv 2506.05333 with D numbers of KV cache a token (keys and values, all layers), r query heads a
    # kv head and 16-bit numbers: 2NP L + 2rN Lin D L + rN D L^2 + 2 I Lin D L + I N D L^2. It takes the sum of j over
    # 1..L for L^2 / 2, which is one part in L less than the sum.
    model = profile(name)
    a = model.architecture
    assert a is not None
    d, r, i = 2 * a.kv_heads * a.head_dim * a.layers, a.heads / a.kv_heads, KINETICS_INTENSITY
    parameters = 2 * samples * model.active * output
    attention = 2 * r * samples * prompt * d * output + r * samples * d * output**2
    traffic = 2 * i * prompt * d * output + i * samples * d * output**2
    ours = EflopsCost(CostOptions())
    decoding = ours.stage_cost(model, StageTokens(prompt, output, samples)) - ours.stage_cost(
        model, StageTokens(prompt, 0, samples)
    )
    assert decoding == pytest.approx(parameters + attention + traffic, rel=1 / output)


def test_intensity_is_stated_or_the_accelerators_or_the_papers() -> None:
    assert EflopsCost(CostOptions()).intensity == 562.5
    assert EflopsCost(CostOptions(accelerator="b200", precision="fp8")).intensity == 562.5
    assert EflopsCost(CostOptions(accelerator="h100-sxm")).intensity == pytest.approx(989.4e12 / 3.35e12)
    assert EflopsCost(CostOptions(accelerator="h100-sxm", intensity=7)).intensity == 7


@given(profiles, stage_tokens, options)
def test_eflops_are_never_below_flops(model: ModelProfile, tokens: StageTokens, how: CostOptions) -> None:
    plain = cost_model("flops", how).stage_cost(model, tokens)
    assert cost_model("eflops", how).stage_cost(model, tokens) >= plain * (1 - 1e-12)


@given(architectures(), quantisations, stage_tokens, options)
def test_grouped_queries_are_cheaper_than_a_cache_for_every_head(
    architecture: Architecture, quantisation: Quantisation, tokens: StageTokens, how: CostOptions
) -> None:
    assume(not architecture.kv_rank and architecture.kv_heads < architecture.heads and tokens.output and tokens.samples)
    every = architecture.model_copy(update={"kv_heads": architecture.heads})
    priced = cost_model("eflops", how)
    assert priced.stage_cost(of(architecture, quantisation), tokens) < priced.stage_cost(
        of(every, quantisation), tokens
    )


@given(profiles, stage_tokens, options)
def test_sharing_the_prompt_is_never_dearer(model: ModelProfile, tokens: StageTokens, how: CostOptions) -> None:
    shared, separate = (cost_model("eflops", replace(how, prompt_shared=s)) for s in (True, False))
    assert shared.stage_cost(model, tokens) <= separate.stage_cost(model, tokens) * (1 + 1e-12)


@given(profiles, stage_tokens, options)
def test_quantised_models_are_never_dearer(model: ModelProfile, tokens: StageTokens, how: CostOptions) -> None:
    smaller = replace(model, quantisation=Quantisation(weights_bits=4, expert_bits=4, kv_bits=8))
    priced = cost_model("eflops", how)
    assert priced.stage_cost(smaller, tokens) <= priced.stage_cost(model, tokens) * (1 + 1e-12)


@given(profiles, stage_tokens)
def test_a_larger_batch_moves_less_for_each(model: ModelProfile, tokens: StageTokens) -> None:
    costs = [EflopsCost(CostOptions(batch_size=b)).stage_cost(model, tokens) for b in (1, 4, 64, 65536)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] >= EflopsCost(CostOptions()).stage_cost(model, tokens)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 60))
def test_attended_keys_are_summed_over_the_window(first: int, count: int, window: int) -> None:
    assert keys_attended(first, count, window) == sum(min(first + j, window) for j in range(1, count + 1))
    assert keys_attended(first, count) == sum(first + j for j in range(1, count + 1))


@given(st.floats(0, 50), st.floats(0, 50), st.integers(1, 60), st.floats(0, 3))
def test_attended_keys_never_fall_between_whole_counts(first: float, count: float, window: int, more: float) -> None:
    keys = keys_attended(first, count, window) * (1 - 1e-12)
    assert keys_attended(first + more, count, window) >= keys
    assert keys_attended(first, count + more, window) >= keys
