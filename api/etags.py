"""Versions of what is read and edited: ETag, If-None-Match and If-Match (RFC 9110, sections 8.8.3 and 13)."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any

from fastapi import Header, Request, Response
from pydantic import BaseModel

from api.problems import Problem, Refused

IfMatch = Annotated[
    str | None,
    Header(max_length=1000, description="The ETag of what was read, or `*`; without it nothing is changed (428)."),
]

CONDITIONAL: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is as the caller's copy, whose ETag was sent as If-None-Match."}
}
EDITED: dict[int | str, dict[str, Any]] = {
    412: {"model": Problem, "description": "It was changed since it was read: If-Match names another version."},
    428: {"model": Problem, "description": "The header If-Match is missing."},
}

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def etag(version: str) -> str:
    """A version as an entity tag."""
    return f'"{version}"'


def conditional(request: Request, answer: BaseModel, headers: dict[str, str] | None = None) -> Response:
    """The answer as JSON under its ETag; 304 without a body where the caller holds the same."""
    body = answer.model_dump_json().encode()
    tag = etag(hashlib.blake2b(body, digest_size=12).hexdigest())
    headers = {**(headers or {}), "ETag": tag, "Cache-Control": "no-cache"}
    if holds(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def holds(request: Request, tag: str) -> bool:
    """Whether the caller holds this version already."""
    sent = request.headers.get("if-none-match", "")
    return sent.strip() == "*" or tag.strip('"') in _TAG.findall(sent)


def versions(if_match: str | None) -> list[str] | None:
    """Versions that an edit may replace; None for any.

    Raises:
        Refused: the header is missing, or no list of entity tags.
    """
    if if_match is None:
        raise Refused(428, "send If-Match with the ETag of what you have read, or * to replace whatever is there")
    if if_match.strip() == "*":
        return None
    # Weak tags never match here, as section 13.1.1 has it.
    return [found.group(1) for found in _TAG.finditer(if_match) if not found.group().startswith("W/")]
