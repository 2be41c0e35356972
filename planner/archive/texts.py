"""How texts are kept: once each, packed where that pays, for as long as the archive's policy says."""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from planner.archive.errors import ArchiveError

PACK_FROM = 200
"""Bytes below which packing is not tried: short texts gain nothing and are most of what small models write."""

_PLAIN, _PACKED = b"\x00", b"\x01"
_DAYS = re.compile(r"days:([1-9][0-9]{0,4})")


def text_bytes(text: str) -> bytes:
    """A text as bytes; lone surrogates, which models do produce, survive."""
    return text.encode("utf-8", "surrogatepass")


def text_digest(text: bytes) -> bytes:
    """The 16-byte BLAKE2b hash under which a text is kept once."""
    return hashlib.blake2b(text, digest_size=16).digest()


def packed(text: bytes) -> bytes:
    """What is stored for a text: one byte that says how, then the text itself or its zlib form where shorter."""
    if len(text) >= PACK_FROM:
        short = zlib.compress(text, 6)
        if len(short) < 0.9 * len(text):
            return _PACKED + short
    return _PLAIN + text


def unpacked(body: bytes) -> str:
    """The inverse of `packed` and `text_bytes`.

    Raises:
        ArchiveError: the body is damaged.
    """
    try:
        raw = body[1:] if body[:1] == _PLAIN else zlib.decompress(body[1:])
        return raw.decode("utf-8", "surrogatepass")
    except (zlib.error, UnicodeDecodeError) as error:
        raise ArchiveError(f"a stored text is damaged ({error}); restore the archive from a copy") from error


@dataclass(frozen=True)
class TextPolicy:
    """How long the bank keeps what models wrote; hash, length, token counts and parsed answers stay in any case."""

    kind: Literal["full", "hash", "days"]
    """``full``: for ever. ``hash``: until its answer has been read. ``days``: some days longer than that."""

    days: int = 0

    @classmethod
    def parse(cls, text: str) -> TextPolicy:
        """Read ``full``, ``hash`` or ``days:N``.

        Raises:
            ArchiveError: it is none of these.
        """
        if text == "full":
            return cls("full")
        if text == "hash":
            return cls("hash")
        found = _DAYS.fullmatch(text)
        if found:
            return cls("days", int(found.group(1)))
        raise ArchiveError(f"{text!r} is no text policy; give full, hash or days:N with N from 1 to 99999")

    def __str__(self) -> str:
        return f"days:{self.days}" if self.kind == "days" else self.kind

    @property
    def least_age(self) -> timedelta | None:
        """How old the youngest draw of a text must be before the text may go; None where no text ever goes."""
        return None if self.kind == "full" else timedelta(days=self.days)
