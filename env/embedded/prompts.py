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

TEMPERATURE = 1.5
"""Temperature at which to sample every stage. At 1.0 the larger models are nearly sure of themselves: more samples then
gain little."""

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
