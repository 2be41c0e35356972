"""Faults of a spec: each with the path of its field and one clear message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from env.errors import ApportionError


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a spec."""

    path: str
    """Dotted path of the field, list positions in brackets: ``pipeline.stages[0].models[1]``; empty for the whole."""

    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(ApportionError):
    """A spec is not usable; holds every fault found, nothing was queued."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def faults_of(error: ValidationError) -> list[Fault]:
    """Pydantic's errors as faults with readable paths."""
    return [Fault(_path(tuple(item["loc"])), _message(item["type"], item["msg"])) for item in error.errors()]


_UNION_TAGS = {
    "torch",
    "openai",
    "replay",
    "fleet",
    "judge",
    "text",
    "after",
    "ids",
    "regex",
    "json",
    "ledger",
    "file",
    "inline",
    "pool",
    "named",
    "numbers",
}
_TAGGED = {"models", "parser", "data", "architecture"}


def _path(location: tuple[int | str, ...]) -> str:
    parts: list[str] = []
    for position, item in enumerate(location):
        # Pydantic names the chosen member of a tagged union in the location; it is no field of the spec.
        before = {str(p) for p in location[max(0, position - 2) : position]}
        if isinstance(item, str) and item in _UNION_TAGS and before & _TAGGED:
            continue
        if item == "[key]":
            continue
        parts.append(f"[{item}]" if isinstance(item, int) else f".{item}" if parts else item)
    return "".join(parts)


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown field"
    if kind == "missing":
        return "is required"
    return message.removeprefix("Value error, ")
