"""Takes secrets out of texts before they are logged, stored or shown.

A server that echoes a request's headers in an error, a driver that repeats a URL, a model that was told too much: what
comes back may hold what only the environment should. The places that write texts down pass them through here.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "[secret]"

_ALWAYS = re.compile(r"apt_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
"""Access tokens of the service, known by their form."""

_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(?:$|_)", re.I)
_URL_NAME = re.compile(r"(?:^|_)(?:URL|URI|DSN|PROXY)$", re.I)
_LEAST_CHARS = 8
"""A shorter value would be found in texts that have nothing to do with it."""

_SURE_CHARS = 16

_named: set[str] = set()

_latest: tuple[dict[Any, Any], set[str], re.Pattern[str] | None] | None = None
"""The environment as it is stored, the named secrets and the pattern made of both, when it was last asked for."""


def name_secret(variable: str) -> None:
    """Treat the value of an environment variable as a secret, whatever its name."""
    _named.add(variable)


def redact(text: str) -> str:
    """The text with the secrets of this process's environment replaced."""
    return redactor()(text)


def redactor() -> Callable[[str], str]:
    """`redact` for many texts at once."""
    global _latest
    raw: dict[Any, Any] = dict(getattr(os.environ, "_data", os.environ))
    # Every statement asks; to decode the environment anew would take longer than most statements do.
    if _latest is None or _latest[0] != raw or _latest[1] != _named:
        _latest = raw, set(_named), _pattern(tuple(os.environ.items()), frozenset(_named))
    pattern = _latest[2]

    def clean(text: str) -> str:
        text = _ALWAYS.sub(HIDDEN, text) if "apt_" in text else text
        return text if pattern is None else pattern.sub(HIDDEN, text)

    return clean


def is_secret_name(variable: str) -> bool:
    """Whether an environment variable's name says that its value is a secret."""
    return variable in _named or _SECRET_NAME.search(variable) is not None


def without_password(url: str) -> str:
    """A URL with the password in it replaced."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return HIDDEN
    return url.replace(f":{password}@", f":{HIDDEN}@", 1) if password else url


class RedactingFormatter(logging.Formatter):
    """Formats log records as another formatter does, without secrets."""

    def __init__(self, inner: logging.Formatter) -> None:
        """Wrap a formatter."""
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return redact(self._inner.format(record))


@lru_cache(maxsize=16)
def _pattern(environ: tuple[tuple[str, str], ...], named: frozenset[str]) -> re.Pattern[str] | None:
    secrets = _secrets(environ, named)
    return re.compile("|".join(re.escape(text) for text in sorted(secrets, key=len, reverse=True))) if secrets else None


def _secrets(environ: Iterable[tuple[str, str]], named: frozenset[str]) -> set[str]:
    """Values to hide, in each way they may be written down."""
    values: set[str] = set()
    for name, value in environ:
        if name in named or _SECRET_NAME.search(name):
            values.add(value.strip())
        elif "://" in value and _URL_NAME.search(name):
            try:
                values.add(urlsplit(value).password or "")
            except ValueError:
                continue
    found: set[str] = set()
    for value in values:
        if _looks_secret(value):
            found |= {
                value,
                json.dumps(value)[1:-1],
                repr(value)[1:-1],
                quote(value, safe=""),
                escape(value),
                _marked_up(value),
            }
            found |= {text for text in (unquote(value),) if _looks_secret(text)}
    return found


def _marked_up(value: str) -> str:
    """As templates write it into a page."""
    return escape(value).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _looks_secret(value: str) -> bool:
    """Whether a value is worth hiding: a word such as "disabled", a number or a path is found in innocent texts."""
    if len(value) < _LEAST_CHARS or value.isdigit() or value.startswith(("/", "./", "~")):
        return False
    return len(value) >= _SURE_CHARS or any(c.isdigit() for c in value)
