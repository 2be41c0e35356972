"""The words the embedded models know, the two tables they must memorise, and their shared tokenizer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNKNOWN, ASSISTANT = "<pad>", "<s>", "</s>", "<unk>", "<assistant>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN, ASSISTANT)
STAGES = ("retrieve", "read", "solve")

PEOPLE = ("ann", "bob", "carl", "dora", "emil", "fay", "gus", "hana")
# fmt: off
ROLES = (
    "baker", "clerk", "pilot", "nurse", "miner", "tailor", "judge", "farmer", "cook", "guard", "smith", "potter",
    "weaver", "singer", "dancer", "painter", "doctor", "lawyer", "teacher", "student", "sailor", "soldier",
    "driver", "butcher", "barber", "builder", "hunter", "fisher", "gardener", "plumber", "printer", "writer",
    "actor", "poet", "priest", "monk", "banker", "broker", "porter", "waiter", "maid", "butler", "jockey", "boxer",
    "coach", "umpire", "grocer", "florist",
)
# fmt: on
COLOURS = ("red", "blue", "green", "white", "black", "pink", "grey", "brown", "gold", "plain")
ITEMS = ("lamp", "chair", "cup", "hat", "book", "rug", "bowl", "coat", "pen", "clock")
MOST_SENTENCES = 12
MOST_BOUGHT = 4

DIGITS = tuple("0123456789")
KEPT_IDS = tuple(f"#{number}" for number in range(1, MOST_SENTENCES + 1))
DROPPED_IDS = tuple(f"x{number}" for number in range(1, MOST_SENTENCES + 1))
_GRAMMAR = ("starts", "with", "earns", "spends", "buys", "gives", "to", "the", "ask", ".", "+", "-", "*", ";", "=")

WORDS = (
    *SPECIAL_TOKENS,
    *STAGES,
    *DIGITS,
    *KEPT_IDS,
    *DROPPED_IDS,
    *_GRAMMAR,
    *PEOPLE,
    *ROLES,
    *COLOURS,
    *ITEMS,
)
TOKEN_IDS = {word: number for number, word in enumerate(WORDS)}

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %} " + ASSISTANT + " {{ message['content'] }} {{ eos_token }}"
    "{% else %} {{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} " + ASSISTANT + "{% endif %}"
)


def _zipf(count: int, exponent: float) -> tuple[float, ...]:
    return tuple(1.0 / rank**exponent for rank in range(1, count + 1))


def _aliases_and_prices() -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, str], int]]:
    """Fixed random facts; their own seed, so that no training or data seed changes them."""
    rng = random.Random("ledger facts")
    aliases = [f"the {role}" for role in ROLES]
    rng.shuffle(aliases)
    share = len(aliases) // len(PEOPLE)
    of_person = {person: tuple(aliases[i * share : (i + 1) * share]) for i, person in enumerate(PEOPLE)}
    pairs = [(colour, item) for colour in COLOURS for item in ITEMS]
    rng.shuffle(pairs)
    return of_person, {pair: rng.randint(2, 19) for pair in pairs}


ALIASES, PRICES = _aliases_and_prices()
"""Aliases of each person, and the price of each (colour, item); both from the most to the least frequent."""

PERSON_OF_ALIAS = {alias: person for person, aliases in ALIASES.items() for alias in aliases}
ALIAS_WEIGHTS = _zipf(len(ROLES) // len(PEOPLE), 1.0)
PRICE_WEIGHTS = _zipf(len(PRICES), 1.0)


def encode(text: str) -> list[int]:
    """Token ids of whitespace-separated words; what the tokenizer gives, without loading it."""
    return [TOKEN_IDS.get(word, TOKEN_IDS[UNKNOWN]) for word in text.split()]


def prompt_text(stage: str, user: str) -> str:
    """What the chat template renders for a system and a user message, up to the assistant's turn."""
    return f"{BOS} {stage} {user} {ASSISTANT}"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer all checkpoints share: one token a word, decoded with single spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(dict(TOKEN_IDS), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(folder: Path) -> None:
    """Write ``tokenizer.json`` and its configuration, chat template inside, next to a model's weights."""
    build_tokenizer().save_pretrained(folder, save_jinja_files=False)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    content["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name every version of transformers knows
    settings.write_text(json.dumps(content, indent=2) + "\n")
