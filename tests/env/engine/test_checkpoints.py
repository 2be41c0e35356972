"""What the engine reads of a checkpoint, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import LlamaConfig as HfConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from env.backends import Message
from env.engine import checkpoint_revision, read_config
from env.engine.engine import Engine
from env.engine.sharing import lease_engine
from env.engine.text import CheckpointTokenizer
from env.errors import BackendError, CheckpointError

Edit = Callable[..., Path]


@pytest.fixture
def edited(tiny: Path, tmp_path: Path) -> Edit:
    """A copy of the checkpoint with changed config fields; None removes one."""

    def edit(**changes: Any) -> Path:
        target = tmp_path / "edited"
        shutil.copytree(tiny, target)
        config = json.loads((target / "config.json").read_text()) | changes
        kept = {name: value for name, value in config.items() if value is not None}
        (target / "config.json").write_text(json.dumps(kept))
        return target

    return edit


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*LlamaForCausalLM and LlamaForSequence"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantized"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0, "factor": 2}}, "yarn"),
        ({"hidden_size": None}, "not a usable Llama config"),
    ],
)
def test_what_is_not_served_is_named(edited: Edit, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_config(edited(**changes))


def test_missing_parts_are_named(tmp_path: Path, edited: Edit) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        read_config(tmp_path / "nowhere")
    folder = edited(intermediate_size=97)
    with pytest.raises(CheckpointError, match="shape"):
        Engine(folder, "cpu")
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Engine(folder, "cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="safetensors"):
        checkpoint_revision(folder)


def test_rotary_base_is_read_in_the_old_and_the_new_form(edited: Edit) -> None:
    old = read_config(edited(rope_parameters=None, rope_theta=123.0))
    assert old.rope_theta == 123.0


def test_rotary_base_of_transformers_five(grouped: Path) -> None:
    assert read_config(grouped).rope_theta == 500.0


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
        {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
    ],
)  # fmt: skip
def test_scaled_rotary_frequencies_are_those_of_transformers(edited: Edit, rope: dict[str, Any]) -> None:
    folder = edited(rope_parameters=rope)
    theirs = LlamaRotaryEmbedding(HfConfig.from_pretrained(folder)).inv_freq
    assert torch.allclose(torch.tensor(read_config(folder).inverse_frequencies()), theirs, rtol=1e-5)


def test_revision_changes_with_any_part_and_not_with_the_place(tiny: Path, edited: Edit) -> None:
    folder = edited()
    (folder / "config.json").write_bytes((tiny / "config.json").read_bytes())
    assert checkpoint_revision(folder) == checkpoint_revision(tiny)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        before = checkpoint_revision(folder)
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)
        assert checkpoint_revision(folder) != before


def test_chat_tokens_are_those_of_apply_chat_template(tiny: Path) -> None:
    tokenizer, reference = CheckpointTokenizer(tiny), AutoTokenizer.from_pretrained(tiny)
    chats = [
        [Message("user", f"w{n} + 3")] if n % 2 else [Message("system", "w1"), Message("user", "what ; w2")]
        for n in range(6)
    ]
    for reply in (True, False):
        plain = [[{"role": m.role, "content": m.content} for m in chat] for chat in chats]
        theirs = reference.apply_chat_template(plain, add_generation_prompt=reply, tokenize=True)["input_ids"]
        assert tokenizer.encode_chats(chats, "reply" if reply else "closed") == theirs


def test_open_chats_end_inside_their_last_message(tiny: Path) -> None:
    tokenizer, reference = CheckpointTokenizer(tiny), AutoTokenizer.from_pretrained(tiny)
    chat = [Message("user", "w1"), Message("assistant", "w2 = 3")]
    plain = [{"role": m.role, "content": m.content} for m in chat]
    theirs = reference.apply_chat_template(plain, continue_final_message=True, tokenize=True)["input_ids"]
    assert tokenizer.encode_chats([chat], "open") == [theirs]
    [closed] = tokenizer.encode_chats([chat], "closed")
    assert closed[: len(theirs)] == theirs
    assert len(closed) > len(theirs)


def test_text_is_decoded_without_special_tokens(tiny: Path) -> None:
    tokenizer, reference = CheckpointTokenizer(tiny), AutoTokenizer.from_pretrained(tiny)
    rows = [[1, 9, 10, 2], [12, 4], []]
    assert tokenizer.decode(rows) == [reference.decode(row, skip_special_tokens=True) for row in rows]


def test_a_checkpoint_without_a_chat_template_says_so(edited: Edit) -> None:
    folder = edited()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="chat template"):
        CheckpointTokenizer(folder).encode_chats([[Message("user", "w1")]])


def test_verifier_scores_are_those_of_transformers(verifier: Path) -> None:
    engine = Engine(verifier, "cpu")
    reference = AutoModelForSequenceClassification.from_pretrained(verifier).eval()
    rows = [[1, *range(9, 9 + length)] for length in (3, 40, 1, 17, 40, 8)]
    scores = engine.score(rows).result()
    with torch.inference_mode():
        theirs = [float(reference(torch.tensor([row])).logits.sigmoid()) for row in rows]
    assert scores == pytest.approx(theirs, abs=1e-5)
    assert all(0 <= score <= 1 for score in scores)
    with pytest.raises(BackendError, match="tokens"):
        engine.score([[]]).result()
    engine.close()


def test_engines_are_shared_until_the_last_user_leaves(tiny: Path) -> None:
    first, second = lease_engine(tiny, "cpu"), lease_engine(tiny, "cpu")
    assert first.engine is second.engine
    first.release()
    first.release()
    assert second.engine.run([]) is not None
    second.release()
    third = lease_engine(tiny, "cpu")
    assert third.engine is not second.engine
    third.release()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_devices_and_number_formats_that_are_not_here_are_refused(tiny: Path) -> None:
    with pytest.raises(CheckpointError, match="CUDA"):
        lease_engine(tiny, "cuda")
    with pytest.raises(CheckpointError, match="bfloat16"):
        lease_engine(tiny, "cpu", dtype="bfloat16")
    with pytest.raises(CheckpointError, match="unknown device"):
        lease_engine(tiny, "abacus")
