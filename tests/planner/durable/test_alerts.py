"""Alerts on their way to a real receiver, which checks the signature as docs/schedules.md shows."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from planner.archive import AlertTarget, RunRecord
from planner.archive.schedule_records import AlertWhen, RunOutcome
from planner.durable import Runtime, scheduled_runs
from planner.schedules import alerts, webhooks
from tests.planner.durable.test_schedules import dice, later, ran, template, until

__all__ = ["dice", "later", "template"]

SECRET_ENV, SECRET = "TEST_ALERT_SECRET", "s3cret of the receiver"
DOCS = Path(__file__).parents[3] / "docs" / "schedules.md"


class Receiver:
    """A webhook on loopback that answers as it is told, and then 204."""

    def __init__(self, answers: list[int]) -> None:
        self.answers = list(answers)
        self.received: list[tuple[Mapping[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.received.append((dict(self.headers.items()), body))
                status = receiver.answers.pop(0) if receiver.answers else 204
                if status == 0:
                    self.connection.close()  # gone without an answer
                    return
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@contextmanager
def receiving(*answers: int) -> Iterator[Receiver]:
    receiver = Receiver(list(answers))
    thread = threading.Thread(target=receiver.server.serve_forever, daemon=True)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_ENV, SECRET)
    monkeypatch.setenv(webhooks.ALLOWED_HOSTS, "127.0.0.1")
    monkeypatch.setattr(scheduled_runs, "BACKOFF_S", (0.05, 0.1, 0.1))


def documented_check() -> Any:
    """The receiver's code out of the documentation."""
    code = re.search(r"```python\n(# receiver\.py.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code.group(1), names)
    return names["genuine"]


def target(url: str, when: AlertWhen = "always") -> AlertTarget:
    return AlertTarget(url, SECRET_ENV, when)


def tell(runtime: Runtime, receiver: Receiver) -> None:
    """Every run of the schedule is told to a receiver."""
    held = runtime.archive.schedules.get("nightly").plan
    runtime.archive.schedules.change("nightly", replace(held, alert=target(receiver.url)))


def settled(runtime: Runtime, run: RunRecord) -> Any:
    """The alert about a run, once it is delivered or given up."""

    def look() -> Any:
        told = [alert for alert in runtime.archive.alerts.list("nightly") if alert.run_id == run.id]
        return next((alert for alert in told if alert.status != "pending"), None)

    return until(look)


def test_an_alert_is_sent_until_it_is_taken_and_its_receiver_can_tell_it_is_ours(later: Runtime) -> None:
    with receiving(503, 0, 204) as receiver:
        tell(later, receiver)
        run = ran(later.archive)
        alert = settled(later, run)
    assert alert.status == "delivered"
    assert [attempt["status"] for attempt in alert.attempts] == [503, None, 204]
    assert [bool(attempt["error"]) for attempt in alert.attempts] == [True, True, False]
    assert len(receiver.received) == 3
    assert len({body for _, body in receiver.received}) == 1
    genuine = documented_check()
    for headers, body in receiver.received:
        assert genuine(headers, body, SECRET)
        assert not genuine(headers, body + b" ", SECRET)
        assert not genuine(headers, body, "another secret")
        assert not genuine({**headers, alerts.TIMESTAMP: str(int(time.time()) - 3600)}, body, SECRET)
        assert headers[alerts.DELIVERY] == run.id
    told = json.loads(receiver.received[-1][1])
    assert (told["schedule"], told["outcome"], told["new_study"]) == ("nightly", "revalidated", None)
    assert told["diff"]["plan"]["after"] == dict(run.diff or {})["plan"]["after"]
    assert SECRET not in receiver.received[0][1].decode()


def test_an_alert_nobody_takes_is_given_up_and_its_log_says_so(later: Runtime) -> None:
    with receiving(500, 500, 500, 500, 500) as receiver:
        tell(later, receiver)
        alert = settled(later, ran(later.archive))
    assert alert.status == "failed"
    assert [attempt["number"] for attempt in alert.attempts] == [1, 2, 3, 4]


def test_a_receiver_that_refuses_is_not_asked_again_and_no_redirect_is_followed(later: Runtime) -> None:
    with receiving(410, 302) as receiver:
        tell(later, receiver)
        for status in (410, 302):
            alert = settled(later, ran(later.archive))
            assert (alert.status, [a["status"] for a in alert.attempts]) == ("failed", [status])


def test_a_secret_that_is_not_set_and_a_host_that_is_not_allowed_are_explained(
    later: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        tell(later, receiver)
        monkeypatch.delenv(SECRET_ENV)
        unset = settled(later, ran(later.archive))
        monkeypatch.setenv(SECRET_ENV, SECRET)
        monkeypatch.delenv(webhooks.ALLOWED_HOSTS)
        private = settled(later, ran(later.archive))
        assert receiver.received == []
    assert unset.status == private.status == "failed"
    assert SECRET_ENV in unset.attempts[0]["error"]
    assert "a loopback address" in private.attempts[0]["error"]


@pytest.mark.parametrize(
    ("when", "outcomes"),
    [
        ("always", {"revalidated", "searched", "skipped", "missed", "failed", "cancelled"}),
        ("change", {"searched", "missed", "failed"}),
        ("failure", {"missed", "failed"}),
    ],
)
def test_what_is_told_depends_on_what_became_of_the_run(when: AlertWhen, outcomes: set[RunOutcome]) -> None:
    never: Any = (None,) * 7
    moment: Any = None
    run = RunRecord("r", "s", 1, moment, "cron", "ended", None, "", False, 1, moment, moment, *never)
    all_: tuple[RunOutcome, ...] = ("revalidated", "searched", "skipped", "missed", "failed", "cancelled")
    told = {outcome for outcome in all_ if alerts.wanted(target("x", when), replace(run, outcome=outcome))}
    assert told == outcomes
    assert not alerts.wanted(None, run)


def test_the_signature_is_plain_hmac_sha256() -> None:
    expected = hmac.new(b"key", b"1700000000.{}", hashlib.sha256).hexdigest()
    assert alerts.signature("key", 1_700_000_000, b"{}") == f"v1={expected}"
