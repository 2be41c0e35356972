"""The durable runtime on real DBOS and SQLite, with simulated models."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, StudyRecord, WorkerRecord
from planner.archive.statuses import TERMINAL
from planner.archive.texts import TextPolicy
from planner.archive.upkeep import Upkeep
from planner.durable import Runtime, workflows
from planner.durable.reaper import DEAD_SECONDS, live_executors, process_exists
from planner.loop import StudyContext
from tests.simulated import DiceBackends, simulated_spec


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    def context(archive: Archive, study_id: str) -> StudyContext:
        return StudyContext(archive, study_id, {}, DiceBackends())

    monkeypatch.setattr(workflows, "StudyContext", context)
    with Runtime(f"sqlite:///{tmp_path}/archive.db", f"sqlite:///{tmp_path}/jobs.db") as opened:
        yield opened


def wait(runtime: Runtime, study_id: str, seconds: float = 60) -> StudyRecord:
    return until(lambda: (s := runtime.archive.studies.get(study_id)).status in TERMINAL and s, seconds)


def until(look: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_a_submitted_study_runs_to_its_plan(runtime: Runtime) -> None:
    study = runtime.submit(simulated_spec())
    assert study.status == "queued"
    assert wait(runtime, study.id).status == "done"
    assert runtime.archive.plans.get(study.id).document["trials"] == 14


def test_texts_that_the_policy_forbids_are_gone_when_a_study_says_it_has_ended(runtime: Runtime) -> None:
    runtime.archive.bank.set_text_policy(TextPolicy("hash"))
    spec = simulated_spec().model_dump(mode="json")
    spec["pipeline"]["stages"][-1].update(strategies=["vote"], verifier=None)
    study = runtime.submit(StudySpec.model_validate(spec))
    assert wait(runtime, study.id).status == "done"
    left = Upkeep(runtime.archive.engine).stats(runtime.archive.bank.text_policy)
    assert left.texts == left.texts_dropped > 0


def test_the_same_idempotency_key_gives_the_same_study(runtime: Runtime) -> None:
    first = runtime.submit(simulated_spec(), "key-1")
    assert runtime.submit(simulated_spec(), "key-1").id == first.id
    wait(runtime, first.id)
    assert len(runtime.archive.studies.list()) == 1


def test_a_study_that_fails_says_why_and_the_next_one_runs(runtime: Runtime) -> None:
    failing = runtime.submit(simulated_spec(proposer={"kind": "agent", "model": None}))
    sound = runtime.submit(simulated_spec())
    failed = wait(runtime, failing.id)
    assert failed.status == "failed"
    assert "no LLM is configured" in failed.error
    assert wait(runtime, sound.id).status == "done"
    with pytest.raises(ApportionError, match="cannot go on"):
        runtime.resume(failing.id)


def test_a_queued_study_is_cancelled_at_once_and_never_runs(runtime: Runtime) -> None:
    running, queued = runtime.submit(simulated_spec()), runtime.submit(simulated_spec())
    assert runtime.cancel(queued.id).status == "cancelled"
    wait(runtime, running.id)
    time.sleep(1)
    assert runtime.archive.trials.list(queued.id) == []


def test_a_running_study_is_cancelled_between_chunks(runtime: Runtime) -> None:
    study = runtime.submit(simulated_spec())
    until(lambda: runtime.archive.studies.get(study.id).status == "running", 20)
    runtime.cancel(study.id)
    assert wait(runtime, study.id, 20).status == "cancelled"


def test_resuming_a_finished_study_changes_nothing(runtime: Runtime) -> None:
    study = runtime.submit(simulated_spec())
    before = wait(runtime, study.id)
    assert runtime.resume(study.id) == before


def test_a_worker_lives_while_it_beats_and_its_process_exists() -> None:
    now = datetime.now(UTC)
    silent = now - timedelta(seconds=DEAD_SECONDS + 1)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    dead_pid = int(gone.stdout)
    workers = [
        WorkerRecord("here", "me", os.getpid(), now, now),
        WorkerRecord("silent", "me", os.getpid(), now, silent),
        WorkerRecord("gone", "me", dead_pid, now, now),
        WorkerRecord("elsewhere", "other", dead_pid, now, now),
    ]
    assert live_executors(workers, now, "me") == {"here", "elsewhere"}
    assert not process_exists(dead_pid)
