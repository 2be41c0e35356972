"""Parameters and KV cache: against published sizes, and against the modules transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from pydantic import ValidationError

from env.costs import active_parameters, kv_bytes_per_token, total_parameters
from env.costs.architecture import weight_bytes, weight_bytes_read
from env.costs.catalogue import CatalogueEntry, catalogue, catalogued
from env.costs.checkpoint import architecture_of, quantisation_of, read_architecture, read_quantisation
from env.embedded import MODEL_NAMES, VERIFIER_NAME, checkpoint_path
from env.errors import ApportionError, CheckpointError
from env.spec.architecture import Architecture, Quantisation
from tests.env.costs.models import architectures, quantisations

TOTAL_TOLERANCE = 0.015
ACTIVE_TOLERANCE = 0.025
"""Model cards print two or three digits."""


@pytest.mark.parametrize(("name", "entry"), catalogue().items(), ids=list(catalogue()))
def test_catalogue_entries_have_their_published_size(name: str, entry: CatalogueEntry) -> None:
    architecture, published = entry.architecture, entry.published
    assert total_parameters(architecture) == pytest.approx(published.total, rel=TOTAL_TOLERANCE)
    active = active_parameters(architecture)
    if published.active is None:
        assert active == total_parameters(architecture)
        return
    if published.active_without_embedding:
        active -= architecture.vocab * architecture.hidden
    assert active == pytest.approx(published.active, rel=ACTIVE_TOLERANCE)


@pytest.mark.parametrize(
    ("name", "kilobytes"),
    [("deepseek-v3", 70.272), ("qwen2.5-72b", 327.680), ("llama-3.1-405b", 516.096)],
)
def test_the_kv_cache_has_its_published_size(name: str, kilobytes: float) -> None:
    # Table 1 of "Insights into DeepSeek-V3" (arXiv 2505.09343), 16-bit numbers.
    assert kv_bytes_per_token(catalogued(name).architecture, Quantisation()) == kilobytes * 1000


SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 211,
    "pad_token_id": 0,
}
LATENT = {
    "kv_lora_rank": 24,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "num_key_value_heads": 4,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "llama with biases": ("LlamaConfig", {"num_key_value_heads": 2, "attention_bias": True}),
    "llama tied": ("LlamaConfig", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 24}),
    "qwen3 mixture": (
        "Qwen3MoeConfig",
        {
            "num_key_value_heads": 2,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "mlp_only_layers": [1],
        },
    ),
    "gemma2": ("Gemma2Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma3": ("Gemma3TextConfig", {"num_key_value_heads": 2, "head_dim": 24}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2}),
    "mixtral": ("MixtralConfig", {"num_key_value_heads": 2, "num_local_experts": 4}),
    "phi3": ("Phi3Config", {"num_key_value_heads": 2}),
    "deepseek v2": (
        "DeepseekV2Config",
        {**LATENT, "q_lora_rank": None, "n_shared_experts": 2, "first_k_dense_replace": 1},
    ),
    "deepseek v3": (
        "DeepseekV3Config",
        {
            **LATENT,
            "q_lora_rank": 40,
            "n_shared_experts": 1,
            "first_k_dense_replace": 2,
            "n_group": 2,
            "topk_group": 1,
        },
    ),
    "gpt-oss": (
        "GptOssConfig",
        {"num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
}


@pytest.mark.parametrize(("config_class", "changes"), FAMILIES.values(), ids=list(FAMILIES))
def test_counted_parameters_are_those_transformers_builds(config_class: str, changes: dict[str, Any]) -> None:
    config = getattr(transformers, config_class)(**{**SMALL, **changes})
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(config)
    counted = total_parameters(architecture_of(json.loads(config.to_json_string())))
    assert counted == sum(p.numel() for p in built.parameters())


def test_a_scoring_head_replaces_the_language_model_head() -> None:
    config = transformers.LlamaConfig(**SMALL, num_labels=3, architectures=["LlamaForSequenceClassification"])
    with torch.device("meta"):
        built = transformers.LlamaForSequenceClassification(config)
    counted = total_parameters(architecture_of(json.loads(config.to_json_string())))
    assert counted == sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("name", [*MODEL_NAMES, VERIFIER_NAME])
def test_embedded_models_have_the_parameters_of_their_weights(name: str) -> None:
    from safetensors import safe_open

    folder, held = checkpoint_path(name), 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as weights:
            for key in weights.keys():  # noqa: SIM118 - no mapping
                size = 1
                for side in weights.get_slice(key).get_shape():
                    size *= side
                held += size
    assert total_parameters(read_architecture(folder)) == held
    assert read_quantisation(folder).weights_bits == 32


@pytest.mark.parametrize(
    ("family", "window", "layers", "sliding"),
    [("gemma2", 4096, 5, 3), ("gemma3_text", 1024, 14, 12), ("gpt_oss", 128, 6, 3), ("mistral", 4096, 5, 5)],
)
def test_layers_with_a_window_follow_the_family_where_they_are_not_listed(
    family: str, window: int, layers: int, sliding: int
) -> None:
    config = {**SMALL, "model_type": family, "sliding_window": window, "num_hidden_layers": layers}
    if family == "gpt_oss":
        config |= {"num_local_experts": 4, "num_experts_per_tok": 2}
    read = architecture_of(config)
    assert (read.sliding_window, read.sliding_layers) == (window, sliding)
    listed = ["sliding_attention"] + ["full_attention"] * (layers - 1)
    assert architecture_of({**config, "layer_types": listed}).sliding_layers == 1


def test_qwen_states_a_window_it_does_not_use() -> None:
    config = {**SMALL, "model_type": "qwen2", "sliding_window": 131072, "use_sliding_window": False}
    assert architecture_of(config).sliding_layers == 0


def test_a_multimodal_config_is_read_by_its_text_part_with_the_numbers_it_leaves_out() -> None:
    config = {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 34,
            "sliding_window": 1024,
        },
        "vision_config": {"hidden_size": 1152},
    }
    assert architecture_of(config) == catalogued("gemma-3-4b").architecture


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba2"}, "'mamba2' is none of those"),
        ({"model_type": None}, "none of those"),
        ({"num_hidden_layers": 0}, "layers"),
        ({"num_key_value_heads": 3}, "no multiple"),
        ({"vocab_size": "many"}, "vocab"),
    ],
)
def test_a_config_that_cannot_be_counted_says_what_to_state_instead(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        architecture_of({**SMALL, "model_type": "llama", **change})
    assert "`parameters`" in str(caught.value)


def test_a_missing_number_is_named() -> None:
    config = {key: value for key, value in SMALL.items() if key != "hidden_size"}
    with pytest.raises(CheckpointError, match="hidden_size"):
        architecture_of({**config, "model_type": "llama"})


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_an_unreadable_config_is_a_checkpoint_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match="state `parameters`"):
        read_architecture(tmp_path)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Quantisation()),
        ({"torch_dtype": "bfloat16"}, Quantisation()),
        ({"dtype": "float32"}, Quantisation(weights_bits=32, kv_bits=32)),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, Quantisation(weights_bits=4)),
        ({"quantization_config": {"quant_method": "fp8"}}, Quantisation(weights_bits=8)),
        ({"quantization_config": {"load_in_4bit": True}}, Quantisation(weights_bits=4)),
        ({"quantization_config": {"quant_method": "mxfp4"}}, Quantisation(expert_bits=4.25)),
    ],
)
def test_quantisation_is_read_from_the_config(config: dict[str, Any], expected: Quantisation) -> None:
    assert quantisation_of(config) == expected


def test_an_unknown_name_gets_the_close_ones() -> None:
    with pytest.raises(ApportionError, match=r"near it are .*qwen3-8b"):
        catalogued("Qwen/Qwen3-8B-Instruct")


@pytest.mark.parametrize(
    "change",
    [
        {"kv_heads": 3},
        {"experts": 4},
        {"experts": 4, "active_experts": 5, "expert_inner": 8},
        {"experts": 4, "active_experts": 2},
        {"dense_layers": 1},
        {"kv_rank": 8},
        {"sliding_window": 8},
        {"inner": 0},
        {"layers": 0},
        {"colour": 1},
    ],
)
def test_numbers_that_contradict_each_other_are_refused(change: dict[str, Any]) -> None:
    good = {"layers": 2, "hidden": 16, "heads": 4, "inner": 32, "vocab": 100}
    assert Architecture.model_validate(good).head_dim == 4
    with pytest.raises(ValidationError):
        Architecture.model_validate({**good, **change})


@given(architectures(), quantisations)
def test_reading_weights_for_more_tokens_reads_more_but_never_more_than_there_are(
    architecture: Architecture, quantisation: Quantisation
) -> None:
    read = [weight_bytes_read(architecture, quantisation, n) for n in (0, 1, 4, 1000)]
    assert read == sorted(read)
    assert read[-1] <= weight_bytes(architecture, quantisation) * (1 + 1e-12)
    assert active_parameters(architecture) <= total_parameters(architecture)


@given(architectures(), quantisations)
def test_fewer_bits_are_never_more_bytes(architecture: Architecture, quantisation: Quantisation) -> None:
    half = Quantisation(
        weights_bits=quantisation.weights_bits / 2,
        expert_bits=None if quantisation.expert_bits is None else quantisation.expert_bits / 2,
        kv_bits=quantisation.kv_bits / 2,
    )
    assert weight_bytes(architecture, half) == pytest.approx(weight_bytes(architecture, quantisation) / 2)
    assert weight_bytes_read(architecture, half, 3) < weight_bytes_read(architecture, quantisation, 3)
    assert kv_bytes_per_token(architecture, half) < kv_bytes_per_token(architecture, quantisation)
