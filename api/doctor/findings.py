"""What an examination says of one subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "trouble"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    level: Level
    subject: str
    message: str
    """What was found and, unless it is well, what to do."""


def ok(subject: str, message: str) -> Finding:
    """All is well."""
    return Finding("ok", subject, message)


def note(subject: str, message: str) -> Finding:
    """Works, and may still not be what was meant."""
    return Finding("note", subject, message)


def trouble(subject: str, message: str) -> Finding:
    """Does not work as it is."""
    return Finding("trouble", subject, message)
