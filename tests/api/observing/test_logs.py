"""Logs for people and for collectors."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from api.observing.logs import LoggedStudies, about, configure_logs
from env.spans import ignore, observe, span


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_logs_are_one_object_a_line_with_their_study_and_exception() -> None:
    stream = io.StringIO()
    configure_logs("json", stream=stream)
    observer = LoggedStudies()
    observe(observer)
    try:
        with span("study", study="abc"):
            logging.getLogger("planner.loop").warning("first\nsecond %s", "ü")
            try:
                raise ValueError("told")
            except ValueError:
                logging.getLogger("planner.loop").exception("it failed")
    finally:
        ignore(observer)
    logging.getLogger("api").info("outside")
    first, failed, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["level"], first["logger"], first["message"], first["study"]) == (
        "WARNING",
        "planner.loop",
        "first\nsecond ü",
        "abc",
    )
    assert first["time"].endswith("+00:00")
    assert "ValueError: told" in failed["exception"]
    assert "study" not in outside


def test_text_logs_name_the_subject() -> None:
    stream = io.StringIO()
    configure_logs("text", stream=stream)
    with about(request="r1"):
        logging.getLogger("api").info("hello")
    assert stream.getvalue().rstrip().endswith("INFO    [r1] hello")


def test_the_level_is_the_least_that_is_shown_and_libraries_stay_quiet() -> None:
    stream = io.StringIO()
    configure_logs("text", "info", stream)
    logging.getLogger("api").debug("too fine")
    logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1")
    assert stream.getvalue() == ""


def test_configuring_again_replaces_the_earlier_stream() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logs("text", stream=first)
    configure_logs("text", stream=second)
    logging.getLogger("api").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
