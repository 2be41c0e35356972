"""What was, or may be, asked of one model on one query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """Requests of one query to one model that have the same shape: what a cost model prices."""

    model: str
    prompt: float
    """Tokens of a prompt that have to be processed (those in a prefix cache are left out), the mean where they vary."""

    output: float
    """Tokens of a sample, mean over the samples."""

    samples: int
    """Of each prompt; 0 where the model only reads, as a verifier does."""

    prompts: int = 1
    """Different prompts."""


def merged(calls: Iterable[Call]) -> tuple[Call, ...]:
    """The same calls with those of one model and one number of samples put together; total tokens stay."""
    groups: dict[tuple[str, int], list[Call]] = {}
    for call in calls:
        groups.setdefault((call.model, call.samples), []).append(call)
    return tuple(_together(group) for group in groups.values())


def _together(group: list[Call]) -> Call:
    prompts = sum(call.prompts for call in group)
    return Call(
        group[0].model,
        sum(call.prompt * call.prompts for call in group) / prompts,
        sum(call.output * call.prompts for call in group) / prompts,
        group[0].samples,
        prompts,
    )
