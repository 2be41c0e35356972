from __future__ import annotations

import pytest

from api.command.following import _left


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.4, ", 0 s left"),
        (59.4, ", 59 s left"),
        (125.0, ", 2 min 05 s left"),
        (7380.0, ", 2 h 03 min left"),
    ],
)
def test_what_is_left_is_said_in_words(seconds: float | None, words: str) -> None:
    assert _left(seconds) == words
