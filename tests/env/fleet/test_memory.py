"""What models are said to take, against sums done by hand, and refusals that carry the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from env.costs.architecture import total_parameters
from env.costs.checkpoint import read_architecture
from env.embedded import checkpoint_path
from env.fleet.devices import Device, parse_nvidia_smi, visible
from env.fleet.errors import DoesNotFitError, FleetError
from env.fleet.memory import Demand, demand_of, read_shape
from env.fleet.placement import claims_of, place, refusal, sets_that_fit
from env.fleet.spec import GIB, FleetModelSpec

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
LLAMA_8B_PARAMETERS = 8_030_261_248  # as published for Llama 3 8B


def checkpoint(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(LLAMA_8B | changes))
    return folder


def demand(folder: Path, config: dict[str, Any] | None = None, **model: Any) -> Demand:
    spec = FleetModelSpec.model_validate({"checkpoint": "x", **model})
    return demand_of("big", spec, checkpoint(folder, **(config or {})))


def gpus(*sizes: float) -> list[Device]:
    return [Device("cuda", number, int(size * GIB)) for number, size in enumerate(sizes)]


def test_weights_without_files_are_the_published_parameters_at_the_served_width(tmp_path: Path) -> None:
    assert demand(tmp_path).weights == 2 * LLAMA_8B_PARAMETERS
    assert demand(tmp_path, dtype="float32").weights == 4 * LLAMA_8B_PARAMETERS


def test_weights_with_files_are_counted_from_their_headers() -> None:
    folder = checkpoint_path("m")
    found = demand_of("m", FleetModelSpec(checkpoint="embedded:m", dtype="float32"), folder)
    assert found.weights == 4 * total_parameters(read_architecture(folder))


def test_auto_serves_float32_checkpoints_in_16_bits() -> None:
    folder = checkpoint_path("m")
    auto, wide = (
        demand_of("m", FleetModelSpec.model_validate({"checkpoint": "embedded:m", "dtype": dtype}), folder)
        for dtype in ("auto", "float32")
    )
    assert auto.weights is not None
    assert wide.weights == 2 * auto.weights
    assert wide.kv_wanted == 2 * (auto.kv_wanted or 0)


def test_a_token_of_cache_takes_keys_and_values_of_every_kv_head(tmp_path: Path) -> None:
    found = demand(tmp_path, kv_tokens=10_000)
    assert found.kv_wanted == 10_000 * 2 * 32 * 8 * 128 * 2
    assert found.kv_least == 8192 * 2 * 32 * 8 * 128 * 2


def test_by_default_eight_sequences_of_the_longest_length_are_wanted(tmp_path: Path) -> None:
    per_token = 2 * 32 * 8 * 128 * 2
    assert demand(tmp_path, max_model_len=1000).kv_wanted == 8000 * per_token
    assert demand(tmp_path, max_model_len=1000, max_num_seqs=2).kv_wanted == 2000 * per_token


def test_tensor_parallel_splits_weights_and_heads_but_no_head(tmp_path: Path) -> None:
    whole, four, sixteen = (demand(tmp_path, tensor_parallel=n) for n in (1, 4, 16))
    assert four.weights == (whole.weights or 0) / 4
    assert four.kv_wanted == (whole.kv_wanted or 0) / 4
    assert sixteen.kv_wanted == (whole.kv_wanted or 0) / 8


def test_data_parallel_takes_more_devices_not_more_of_each(tmp_path: Path) -> None:
    one, three = demand(tmp_path), demand(tmp_path, data_parallel=3)
    assert (three.devices, three.weights, three.kv_wanted) == (3, one.weights, one.kv_wanted)


def test_quantising_while_loading_shrinks_matrices_but_not_embeddings(tmp_path: Path) -> None:
    embeddings = 2 * 128256 * 4096 + 65 * 4096
    linear = LLAMA_8B_PARAMETERS - embeddings
    assert demand(tmp_path, quantisation="fp8").weights == linear + 2 * embeddings
    assert demand(tmp_path, quantisation="bitsandbytes").weights == linear / 2 + 2 * embeddings


def test_a_quantised_checkpoint_takes_the_size_of_its_files(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, quantization_config={"quant_method": "awq"})
    header = json.dumps({"a.qweight": {"dtype": "I32", "shape": [10, 10], "data_offsets": [0, 400]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(400))
    found = demand_of("q", FleetModelSpec(checkpoint="x"), folder)
    assert found.weights == (folder / "model.safetensors").stat().st_size


def test_latent_attention_caches_the_latent_and_is_not_split(tmp_path: Path) -> None:
    config = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
    one, four = (demand(tmp_path, config, kv_tokens=10_000, tensor_parallel=n) for n in (1, 4))
    assert one.kv_wanted == four.kv_wanted == 10_000 * 32 * (512 + 64) * 2


def test_a_mixture_of_experts_counts_every_expert(tmp_path: Path) -> None:
    shape = read_shape(checkpoint(tmp_path, num_local_experts=8))
    assert shape.linear_parameters == 32 * (4096 * 128 * (2 * 32 + 2 * 8) + 8 * 3 * 4096 * 14336)


def test_an_unreadable_config_says_what_to_state_instead(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FleetError, match=r"state memory in the fleet file"):
        read_shape(tmp_path)


def test_a_model_too_large_is_refused_with_the_numbers(tmp_path: Path) -> None:
    found = demand(tmp_path)
    with pytest.raises(DoesNotFitError) as caught:
        claims_of([found], gpus(24, 16))
    message = str(caught.value)
    assert "big does not fit: it claims 24.96 GiB" in message
    assert "weights 14.96 GiB + KV cache 8.00 GiB + overhead 2.00 GiB" in message
    assert "cuda:0 has 24.00 GiB to give" in message
    assert "quantised" in message


def test_a_claim_too_small_to_start_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match=r"cannot start below 17\.96 GiB"):
        claims_of([demand(tmp_path, memory="16GiB")], gpus(80))


def test_too_many_devices_wanted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFitError, match="takes 4 devices, there are 2"):
        claims_of([demand(tmp_path, tensor_parallel=2, data_parallel=2)], gpus(80, 80))


def test_an_unknown_size_must_be_stated() -> None:
    remote = FleetModelSpec(checkpoint="owner/name")
    with pytest.raises(FleetError, match="state memory"):
        claims_of([demand_of("far", remote, None)], gpus(80))
    stated = remote.model_copy(update={"gpu_memory_utilization": 0.5})
    assert claims_of([demand_of("far", stated, None)], gpus(80)).bytes_on["far"][0] == 40 * GIB


def test_the_fleet_claims_no_more_than_its_share_of_a_device() -> None:
    half = [Device("cuda", 0, 80 * GIB, share=0.5)]
    spec = FleetModelSpec.model_validate({"checkpoint": "owner/name", "memory": "50GiB"})
    with pytest.raises(DoesNotFitError, match=r"cuda:0 has 40\.00 GiB to give \(of 80\.00 GiB\)"):
        claims_of([demand_of("far", spec, None)], half)


def stated(name: str, size: str, devices: int = 1) -> Demand:
    spec = FleetModelSpec.model_validate({"checkpoint": "owner/name", "memory": size, "tensor_parallel": devices})
    return demand_of(name, spec, None)


def test_sets_that_fit_are_the_largest_ones() -> None:
    claims = claims_of([stated("a", "30GiB"), stated("b", "30GiB"), stated("c", "38GiB", 2)], gpus(80, 40))
    assert sets_that_fit(claims) == [("a", "b"), ("a", "c"), ("b", "c")]


def test_placement_finds_the_only_way_to_pack() -> None:
    claims = claims_of(
        [stated("a", "6GiB"), stated("b", "5GiB"), stated("c", "4GiB"), stated("d", "5GiB")], gpus(10, 10)
    )
    placed = place(["a", "b", "c", "d"], claims)
    assert placed is not None
    assert {placed["a"], placed["c"]} & {placed["b"], placed["d"]} == set()


def test_placement_leaves_pinned_models_where_they_are() -> None:
    claims = claims_of([stated("a", "6GiB"), stated("b", "6GiB")], gpus(10, 10))
    assert place(["b"], claims, {"a": (0,)}) == {"a": (0,), "b": (1,)}


def test_models_that_do_not_fit_together_are_named_with_the_numbers() -> None:
    claims = claims_of([stated("a", "6GiB"), stated("b", "7GiB")], gpus(10))
    message = str(refusal(["a", "b"], claims))
    for part in ("a: 6.00 GiB", "b: 7.00 GiB", "cuda:0 has 10.00 GiB"):
        assert part in message


def test_nvidia_smi_is_read_in_mebibytes_and_visible_devices_respected() -> None:
    found = parse_nvidia_smi("0, 81559\n1, 81559\nnonsense\n")
    assert [(device.index, device.total) for device in found] == [(0, 81559 << 20), (1, 81559 << 20)]
    assert [device.index for device in visible(found, "1")] == [1]
    assert visible(found, "") == ()
    assert visible(found, None) == visible(found, "GPU-uuid") == found
