"""What each stage of the ledger pipeline is asked, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "retrieve": ("{% for sentence in story %}#{{ loop.index }} {{ sentence }} {% endfor %}ask {{ person }}"),
        "read": "{% for i in retrieve %}{{ story[i - 1] }} {% endfor %}ask {{ person }}",
        "solve": "{{ read }}",
    }
)
"""Jinja templates of the user messages by stage; the stage's name is the whole system message.

``retrieve`` is the list of sentence numbers of the first stage, ``read`` the text of the second.
"""

CRITIC_PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "judge": "{{ prompt }} ask {{ attempt.split()[:96] | join(' ') }}",
        "revise": "{{ prompt }} with {{ attempt.split()[:96] | join(' ') }}",
        "fuse": (
            "{{ prompt }}"
            "{% for attempt in attempts[:8] %} #{{ loop.index }} = {{ attempt.split()[-2:] | join(' ') }}{% endfor %}"
        ),
    }
)
"""Jinja templates of the critic's user messages by task; the task's name is the whole system message.

``prompt`` is what the solve stage was asked, ``attempt`` one raw answer to it, ``attempts`` a list of raw answers. The
cuts keep prompt and reply within the models' 256 tokens. ``revise`` and ``fuse`` are not among the models' words: the
tokenizer reads both as ``<unk>``, and the critic tells its tasks apart by the form of the user message.
"""

VERDICTS: Mapping[str, bool] = MappingProxyType({"#1": True, "x1": False})
"""Last word of a judgement: the attempt is right, or wrong."""

TEMPERATURE = 1.5
"""Temperature at which to sample every stage. At 1.0 the larger models are nearly sure of themselves: more samples then
gain little."""

MOST_FUSED = 8
"""Answers that the critic fuses at most; later ones are not shown."""

_LONGEST_ATTEMPT = 96
_ID = re.compile(r"#(\d+)")
_LEDGER = re.compile(r"\d \d(?: [+-](?: \d \*)? \d \d)*")
_NUMBER = re.compile(r"= (\d) (\d)$")


def retrieve_prompt(sentences: Sequence[str], person: str) -> str:
    """What `PROMPTS` renders for the retrieve stage."""
    numbered = (f"#{number} {sentence}" for number, sentence in enumerate(sentences, 1))
    return " ".join([*numbered, "ask", person])


def read_prompt(sentences: Sequence[str], person: str) -> str:
    """What `PROMPTS` renders for the read stage, of the sentences retrieved."""
    return " ".join([*sentences, "ask", person])


def judge_prompt(prompt: str, attempt: str) -> str:
    """What `CRITIC_PROMPTS` renders for judging one answer."""
    return " ".join([prompt, "ask", *attempt.split()[:_LONGEST_ATTEMPT]])


def revise_prompt(prompt: str, attempt: str) -> str:
    """What `CRITIC_PROMPTS` renders for correcting one answer."""
    return " ".join([prompt, "with", *attempt.split()[:_LONGEST_ATTEMPT]])


def fuse_prompt(prompt: str, attempts: Sequence[str]) -> str:
    """What `CRITIC_PROMPTS` renders for several answers, of which it shows the last two words."""
    shown = (" ".join(attempt.split()[-2:]) for attempt in attempts[:MOST_FUSED])
    return " ".join([prompt, *(f"#{number} = {answer}" for number, answer in enumerate(shown, 1))])


def parse_ids(text: str) -> tuple[int, ...] | None:
    """Sentence numbers kept by a retrieve answer such as ``#1 x2 #3``, sorted; None where there is none."""
    return tuple(sorted({int(number) for number in _ID.findall(text)})) or None


def parse_ledger(text: str) -> str | None:
    """A read answer where it is a ledger expression, else None."""
    return text if _LEDGER.fullmatch(text) else None


def parse_number(text: str) -> str | None:
    """The final number of a solve answer, ``42`` for one that ends in ``= 4 2``; None where it does not end so."""
    found = _NUMBER.search(text)
    return "".join(found.groups()) if found else None


def parse_verdict(text: str) -> bool | None:
    """Whether a judgement finds the attempt right; None where it ends without a verdict."""
    return VERDICTS.get(text.split()[-1]) if text.split() else None
