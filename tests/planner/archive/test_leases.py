"""Leases: a run of a study that was taken over writes nothing any more, whatever it tries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from env.backends import Draw, ModelIdentity
from planner.archive import (
    Archive,
    ArchiveUnavailable,
    Claim,
    GuidelineRecord,
    LeaseLost,
    ProposalRecord,
    StudyRecord,
)
from planner.archive.sessions import IDLE_WRITE_S
from tests.planner.archive.samples import a_result, an_allocation

KEY = "ab" * 32
DRAW = Draw(0, "text", "stop", 1, 1, None)

WRITES: dict[str, Callable[[Archive, str], object]] = {
    "trial": lambda a, s: a.trials.record(s, 1, "search", 0, a_result(), "flops"),
    "proposal": lambda a, s: a.proposals.record(ProposalRecord(s, 0, 0, 0, an_allocation(), "insight", "accepted")),
    "guideline": lambda a, s: a.guidelines.record(GuidelineRecord(s, 0, 0, 1, None, "text", {})),
    "plan": lambda a, s: a.plans.record(s, "chosen", an_allocation(), {}),
    "reservation": lambda a, s: a.ledgers.reserve(s, "search", "trial-1", "draws", 1, None),
    "reservations": lambda a, s: a.ledgers.reserve_batch(s, {"trial-1": [Claim("search", "draws", 1, None)]}),
    "settlement": lambda a, s: a.ledgers.settle(s, "search", "open", 1),
    "event": lambda a, s: a.events.append(s, "trial", {}),
    "status": lambda a, s: a.studies.set_status(s, "running"),
    "progress": lambda a, s: a.studies.set_progress(s, "execute", 3),
    "step": lambda a, s: a.steps.record(s, "execute-1", 3),
    "draws": lambda a, s: a.bank.settle(ModelIdentity("m", "r"), {KEY: (DRAW,)}),
}


def left(archive: Archive, study: str) -> list[object]:
    """Everything that the writes above would change."""
    record: StudyRecord = archive.studies.get(study)
    return [
        record, archive.trials.list(study), archive.proposals.list(study), archive.guidelines.list(study),
        archive.plans.list(study), archive.ledgers.entries_of(study, "search"), archive.events.after(study),
        archive.steps.all(study), dict(archive.bank.held([KEY])),
    ]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_each_write_of_a_run_that_was_taken_over_is_refused(archive: Archive, study: str, write: str) -> None:
    archive.ledgers.reserve(study, "search", "open", "draws", 2, None)
    own = archive.fenced(study, 1)
    assert archive.leases.claim(study, 1, "worker-a")
    assert archive.leases.advance(study, 1)
    before = left(archive, study)
    with pytest.raises(LeaseLost, match="taken over by run 2"):
        WRITES[write](own, study)
    assert left(archive, study) == before
    WRITES[write](archive.fenced(study, 2), study)
    assert left(archive, study) != before


def test_a_run_is_ended_by_one_of_those_who_want_to(archive: Archive, study: str) -> None:
    assert [archive.leases.advance(study, 1) for _ in range(3)] == [True, False, False]
    assert not archive.leases.claim(study, 1, "worker-a")
    assert archive.leases.claim(study, 2, "worker-b")
    assert (archive.leases.get(study).epoch, archive.leases.get(study).owner) == (2, "worker-b")


def test_a_takeover_waits_for_the_write_that_was_checked_before_it(archive: Archive, study: str) -> None:
    own = archive.fenced(study, 1)
    taken = threading.Event()

    def take() -> None:
        archive.leases.advance(study, 1)
        taken.set()

    thread = threading.Thread(target=take)
    with own._sessions.write() as session:
        thread.start()
        assert not taken.wait(0.5)
        assert session.connection() is not None
    assert taken.wait(5)
    thread.join()


def test_a_worker_frozen_in_the_midst_of_a_write_holds_off_a_takeover_for_seconds_only(
    archive: Archive, study: str
) -> None:
    if archive.engine.dialect.name != "postgresql":
        pytest.skip("SQLite cannot take a lock from a process that lives; see docs/jobs.md")
    started = time.monotonic()
    with pytest.raises(ArchiveUnavailable), archive.fenced(study, 1)._sessions.write():
        assert archive.leases.advance(study, 1)
    assert time.monotonic() - started < IDLE_WRITE_S + 3


def test_a_worker_frozen_while_it_sends_a_batch_holds_off_a_takeover_for_seconds_only(
    archive: Archive, study: str
) -> None:
    if archive.engine.dialect.name != "postgresql":
        pytest.skip("SQLite cannot take a lock from a process that lives; see docs/jobs.md")
    started = time.monotonic()
    with pytest.raises(ArchiveUnavailable), archive.fenced(study, 1)._sessions.write() as session:  # noqa: PT012
        driver = session.connection().connection.driver_connection
        assert driver is not None
        with driver.pipeline() as pipeline:
            driver.execute("SELECT 1")
            pipeline._conn.pgconn.send_flush_request()  # sent, answered, and no end of the batch in sight
            pipeline._conn.pgconn.flush()
            time.sleep(0.2)
            # Idle it is not: PostgreSQL takes it for at work.
            assert archive.leases.advance(study, 1)
        session.connection().exec_driver_sql("SELECT 1")
    assert time.monotonic() - started < IDLE_WRITE_S + 4


def test_steps_are_kept_as_they_first_ended(archive: Archive, study: str) -> None:
    archive.steps.record(study, "propose-1-0", {"accepted": 2, "usable": True})
    archive.steps.record(study, "propose-1-0", {"accepted": 7})
    archive.steps.record(study, "initialise", 4)
    assert archive.steps.all(study) == {"propose-1-0": {"accepted": 2, "usable": True}, "initialise": 4}
