"""ETags of what is edited: who changes a thing says which version of it they saw."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header

from api.problems import Problem, Refused

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=200, description="The ETag of what is changed, or * for whichever it is."),
]

EDIT_PROBLEMS: dict[int | str, dict[str, Any]] = {
    412: {"model": Problem, "description": "It was changed since it was read; nothing was changed now."},
    428: {"model": Problem, "description": "If-Match is missing."},
}


def etag(version: int) -> str:
    """The ETag of a version."""
    return f'"v{version}"'


def expected_version(if_match: str | None) -> int | None:
    """The version that a client saw; None for whichever it is.

    Raises:
        Refused: the header is missing, or no ETag of ours.
    """
    if if_match is None:
        raise Refused(428, "send the ETag of what you change as If-Match, so that nobody's change is lost; * for any")
    if if_match.strip() == "*":
        return None
    found = re.fullmatch(r'(?:W/)?"v(\d{1,9})"', if_match.strip())
    if found is None:
        raise Refused(412, f"If-Match is no ETag of this: {if_match!r}; read it again")
    return int(found.group(1))
