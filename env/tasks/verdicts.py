"""Reads a judge's verdict out of its words."""

from __future__ import annotations

import re

_VERDICT = re.compile(r"(?<!\w)(?:(right|correct|yes|true|#1)|(wrong|incorrect|no|false|x1))(?!\w)", re.IGNORECASE)


def says_right(text: str) -> bool:
    """Whether the last verdict word of a check calls the reply right; no verdict is none.

    Verdict words are right, correct, yes, true and wrong, incorrect, no, false, whatever their case; and the marks
    ``#1`` and ``x1`` of the embedded critic, which has no such words.
    """
    found = list(_VERDICT.finditer(text))
    return bool(found) and found[-1].group(1) is not None
