"""The shipped checkpoints: they load, have the stated sizes, share a tokenizer and do their stages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification

from env.embedded import (
    CHECKPOINT_NAMES,
    TEMPERATURE,
    VERIFIER_NAME,
    checkpoint_path,
    ledger_examples,
    parse_number,
)
from env.embedded.curves import PARSERS, stage_inputs, vote
from env.embedded.sampling import Sampled, Sampler
from env.embedded.vocabulary import TOKEN_IDS, WORDS, prompt_text
from env.errors import CheckpointError

STATED_PARAMETERS = {"xs": 31040, "s": 115328, "m": 345216, "l": 820992, "verifier": 382368, "critic": 168704}
STATED_MEGABYTES = 12
SOME = 40


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _draw(model: str, stage: str, count: int, temperature: float) -> tuple[list[list[Sampled]], Sequence[object]]:
    users, gold = zip(*(stage_inputs(stage, example) for example in ledger_examples("test", SOME)), strict=True)
    return Sampler(checkpoint_path(model), seed=0).sample(stage, users, count, temperature), gold


def _greedy_accuracy(model: str, stage: str) -> float:
    drawn, gold = _draw(model, stage, 1, 0.0)
    return sum(PARSERS[stage](row[0].text) == wanted for row, wanted in zip(drawn, gold, strict=True)) / SOME


def test_the_package_itself_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, env.embedded; print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_model_is_refused_with_the_choices() -> None:
    with pytest.raises(CheckpointError, match="xs, s, m, l, verifier, critic"):
        checkpoint_path("xl")


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
def test_checkpoints_load_with_the_stated_number_of_parameters(name: str) -> None:
    kind = LlamaForSequenceClassification if name == VERIFIER_NAME else LlamaForCausalLM
    model = kind.from_pretrained(checkpoint_path(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == STATED_PARAMETERS[name]


def test_all_checkpoints_together_stay_small() -> None:
    folders = [checkpoint_path(name) for name in CHECKPOINT_NAMES]
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert size <= STATED_MEGABYTES * 1e6


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
def test_configurations_are_plain_llama(name: str) -> None:
    config = AutoConfig.from_pretrained(checkpoint_path(name))
    assert (config.model_type, config.head_dim, config.hidden_act) == ("llama", 32, "silu")
    assert config.vocab_size == len(WORDS)
    assert len({config.bos_token_id, config.eos_token_id, config.pad_token_id}) == 3


@pytest.mark.parametrize("name", CHECKPOINT_NAMES)
def test_the_tokenizer_covers_every_word_and_joins_with_spaces(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path(name))
    assert {word: tokenizer.convert_tokens_to_ids(word) for word in WORDS} == TOKEN_IDS
    text = "#1 the baker buys 3 red lamp . ask ann"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids == [TOKEN_IDS[word] for word in text.split()]
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_the_chat_template_gives_the_training_format() -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path("s"))
    messages = [{"role": "system", "content": "solve"}, {"role": "user", "content": "2 3 + 1 5"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == prompt_text("solve", "2 3 + 1 5")
    answered = [*messages, {"role": "assistant", "content": "= 3 8"}]
    text = tokenizer.apply_chat_template(answered, tokenize=False, add_generation_prompt=False)
    assert text == f"{prompt_text('solve', '2 3 + 1 5')} = 3 8 </s>"
    assert tokenizer.apply_chat_template(answered)["input_ids"] == [TOKEN_IDS[word] for word in text.split()]


def test_the_sampler_agrees_with_transformers() -> None:
    model = LlamaForCausalLM.from_pretrained(checkpoint_path("s"))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path("s"))
    user = "4 0 + 2 3 - 1 5"
    prompt = tokenizer(prompt_text("solve", user), return_tensors="pt", add_special_tokens=False)
    generated = model.generate(**prompt, do_sample=False, max_new_tokens=60)[0, prompt.input_ids.shape[1] :]
    text = tokenizer.decode(generated, skip_special_tokens=True)
    assert Sampler(checkpoint_path("s")).sample("solve", [user], 1, 0.0)[0][0].text == text


def test_votes_recover_what_one_draw_loses() -> None:
    drawn, gold = _draw("s", "solve", 16, TEMPERATURE)
    answers = [[parse_number(one.text) for one in row] for row in drawn]
    once = sum(answer == wanted for row, wanted in zip(answers, gold, strict=True) for answer in row) / (16 * SOME)
    voted = sum(vote(row) == wanted for row, wanted in zip(answers, gold, strict=True)) / SOME
    assert voted > once + 0.1


@pytest.mark.parametrize(
    ("model", "stage", "least"),
    [
        ("l", "retrieve", 0.85),
        ("l", "read", 0.9),
        ("l", "solve", 0.95),
        ("m", "retrieve", 0.7),
        ("m", "read", 0.9),
        ("s", "solve", 0.9),
        ("xs", "solve", 0.5),
    ],
)
def test_models_reach_the_stated_accuracy(model: str, stage: str, least: float) -> None:
    assert _greedy_accuracy(model, stage) >= least
