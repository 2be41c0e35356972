"""Models and tokens for the tests of costs, and hypothesis strategies over them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from env.costs import CostOptions, ModelProfile, StageTokens, active_parameters, total_parameters
from env.costs.catalogue import catalogued
from env.spec.architecture import Architecture, Price, Quantisation

PRICE = Price(input=0.5, output=2.0, cached_input=0.1)


def profile(name: str = "llama-3.1-8b", quantisation: Quantisation | None = None) -> ModelProfile:
    entry = catalogued(name)
    return of(entry.architecture, quantisation or entry.quantisation, name)


def of(architecture: Architecture, quantisation: Quantisation | None = None, name: str = "m") -> ModelProfile:
    active, total = active_parameters(architecture), total_parameters(architecture)
    return ModelProfile(name, active, total, architecture, quantisation or Quantisation(), PRICE)


def everything(**changes: Any) -> CostOptions:
    """Options with which every unit can be priced."""
    return CostOptions(**{"accelerator": "h100-sxm", "calibration": 3.0, **changes})


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small architectures of every kind: dense or mixture, plain or latent attention, with and without windows."""
    layers, kv_heads = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    numbers: dict[str, Any] = {
        "layers": layers,
        "hidden": draw(st.integers(8, 64)),
        "heads": kv_heads * draw(st.integers(1, 4)),
        "kv_heads": kv_heads,
        "head_dim": draw(st.integers(4, 32)),
        "inner": draw(st.integers(8, 128)),
        "vocab": draw(st.integers(10, 1000)),
        "tied": draw(st.booleans()),
    }
    if draw(st.booleans()):
        experts = draw(st.integers(2, 16))
        numbers |= {
            "experts": experts,
            "active_experts": draw(st.integers(1, experts)),
            "shared_experts": draw(st.integers(0, 2)),
            "expert_inner": draw(st.integers(4, 32)),
            "dense_layers": draw(st.integers(0, layers)),
        }
    if draw(st.booleans()):
        numbers |= {"kv_rank": draw(st.integers(2, 16)), "rope_dim": 2, "value_dim": draw(st.integers(2, 16))}
    if draw(st.booleans()):
        numbers |= {"sliding_window": draw(st.integers(1, 40)), "sliding_layers": draw(st.integers(1, layers))}
    return Architecture.model_validate(numbers)


quantisations = st.builds(
    Quantisation,
    weights_bits=st.sampled_from([4.0, 8.0, 16.0, 32.0]),
    expert_bits=st.sampled_from([None, 4.25]),
    kv_bits=st.sampled_from([8.0, 16.0]),
)

profiles = st.builds(of, architectures(), quantisations)

stage_tokens = st.builds(
    StageTokens, st.integers(0, 200), st.integers(0, 60), st.integers(1, 12), prompts=st.integers(1, 3)
)

options = st.builds(
    everything,
    prompt_shared=st.booleans(),
    batch_size=st.sampled_from([None, 1, 7, 64]),
    accelerator=st.sampled_from(["h100-sxm", "a100-40", "l4", "b200"]),
    tensor_parallel=st.sampled_from([None, 1, 2]),
)
