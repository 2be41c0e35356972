"""Logs as lines for people or as JSON for collectors, each with the study and the request it belongs to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

from env.secrets import RedactingFormatter
from env.spans import Span

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_QUIET = ("httpx", "httpx2", "httpcore", "openai", "dbos", "dbos.dbos", "uvicorn.access", "alembic")
"""Loggers of libraries that say at the level of info what nobody asked for."""

_about: ContextVar[Mapping[str, str]] = ContextVar("apportion_log_context", default={})  # noqa: B039 - never changed


@contextmanager
def about(**subject: str) -> Iterator[None]:
    """Log records made inside the block carry these fields, in this task and those it starts.

    Args:
        subject: for instance ``study`` or ``request``.
    """
    token = _about.set({**_about.get(), **subject})
    try:
        yield
    finally:
        _about.reset(token)


class LoggedStudies:
    """An observer of spans: what is logged inside a study carries the study's id."""

    @contextmanager
    def watching(self, span: Span) -> Iterator[None]:
        """See `env.spans.Observer`."""
        if span.name != "study":
            yield
            return
        with about(study=str(span.attributes["study"])):
            yield


def configure_logs(
    format: LogFormat = "text", level: LogLevel = "info", stream: TextIO | None = None
) -> logging.Handler:
    """Send all logs of this process to one stream, instead of wherever they went before.

    Args:
        format: ``text`` for people, ``json`` with one object a line: ``time`` (UTC, ISO 8601), ``level``, ``logger``,
            ``message``, ``study`` and ``request`` where they apply, ``exception``.
        level: the least that is shown of ours; libraries only report warnings.
        stream: standard error by default.

    Returns:
        The handler, to which filters can be added.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_add_subject)
    handler.setFormatter(RedactingFormatter(_json_formatter() if format == "json" else _TextFormatter()))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


def _add_subject(record: logging.LogRecord) -> bool:
    for name, value in _about.get().items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True


def _json_formatter() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message", "exc_info"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        timestamp="time",
        json_ensure_ascii=False,
    )


class _TextFormatter(logging.Formatter):
    """A line with time, level, subject and message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(subject)s%(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        study, request = getattr(record, "study", ""), getattr(record, "request", "")
        record.subject = "".join(f"[{word}] " for word in (study, request) if word)
        return super().format(record)
