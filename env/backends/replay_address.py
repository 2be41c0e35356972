"""How a prompt names recorded draws: the last message is a JSON object with stage, example and upstream answers.

The address is data in the rendered prompt, so it is part of every draw's key like any other prompt, and nothing between
the spec and the backend has to know about replay. `address_template` writes the template of that message.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from env.backends._base import Message
from env.errors import ApportionError
from env.tasks.parsers import canonical

_FIELDS = {"stage", "example", "upstream"}


class AddressError(ApportionError):
    """A prompt does not say which recorded draws it asks for."""


@dataclass(frozen=True)
class Address:
    """Whose draws are asked for."""

    stage: str
    example: str
    upstream: tuple[str | None, ...] = ()
    """Canonical answers of the earlier stages the draws were made for, in pipeline order; None is "no answer"."""

    def __str__(self) -> str:
        after = f" after {', '.join(a or 'no answer' for a in self.upstream)}" if self.upstream else ""
        return f"stage {self.stage!r}, example {self.example!r}{after}"


def address_template(stage: str, upstream: Sequence[str] = (), example: str = "example") -> str:
    """Template of the message that addresses a stage's recorded draws.

    Args:
        stage: the stage's name in the pool.
        upstream: the earlier stages whose answers the pool's ``upstream`` column holds, in its order.
        example: the variable with the example's id; the ``pool`` data source supplies ``example``.
    """
    answers = ", ".join(f"{{{{ {name} | tojson }}}}" for name in upstream)
    return f'{{"stage": {json.dumps(stage)}, "example": {{{{ {example} | tojson }}}}, "upstream": [{answers}]}}'


def address_of(messages: Sequence[Message]) -> Address:
    """The address in the last message.

    An empty text and an empty list stand for "no answer", as they do in every later prompt (`answer_variable`).

    Raises:
        AddressError: the last message is no such object; the message says what it should be.
    """
    text = messages[-1].content if messages else ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise AddressError(_expected(f"found {text[:80]!r}")) from None
    if not isinstance(value, dict) or not {"stage", "example"} <= set(value) <= _FIELDS:
        raise AddressError(_expected(f"found {text[:80]!r}"))
    stage, example, upstream = value["stage"], value["example"], value.get("upstream", [])
    if not isinstance(stage, str) or not isinstance(example, str | int) or isinstance(example, bool):
        raise AddressError(_expected("stage must be a text, example a text or a whole number"))
    if not isinstance(upstream, list):
        raise AddressError(_expected("upstream must be a list of earlier answers"))
    return Address(stage, str(example), tuple(None if a in ("", []) else canonical(a) for a in upstream))


def _expected(found: str) -> str:
    return (
        "the last message of a replayed prompt must be a JSON object like "
        f'{{"stage": "solve", "example": "7", "upstream": ["..."]}}: {found}'
    )
