"""Pausing between batches, going on, cancelling within seconds, and the order in which studies are started."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from planner.archive import StatusConflict, open_archive
from planner.durable import Runtime
from planner.loop import InProcessSteps, StudyContext, run_loop
from tests.planner.durable.conftest import Gate, until, wait
from tests.simulated import DiceBackends, simulated_spec


def test_a_paused_study_keeps_what_it_has_frees_its_place_and_goes_on(runtime: Runtime, gate: Gate) -> None:
    undisturbed = runtime.submit(simulated_spec())
    wait(runtime, undisturbed.id)
    gate.open.clear()
    study, following = runtime.submit(simulated_spec(name="again", seed=7)), runtime.submit(simulated_spec(seed=8))
    until(lambda: gate.asked and runtime.archive.studies.get(study.id).phase == "execute")
    assert runtime.pause(study.id).status == "running"
    gate.open.set()
    wait(runtime, study.id, status="paused")
    held = [t.trial_no for t in runtime.archive.trials.list(study.id)]
    assert held  # the batch in flight was finished
    assert wait(runtime, following.id).status == "done"
    assert runtime.archive.studies.get(study.id).status == "paused"
    assert runtime.resume(study.id).status == "queued"
    assert wait(runtime, study.id).status == "done"
    trials = [t.trial_no for t in runtime.archive.trials.list(study.id)]
    assert trials[: len(held)] == held
    assert len(set(trials)) == len(trials)
    statuses = [e.payload["status"] for e in runtime.archive.events.after(study.id) if e.kind == "status"]
    assert statuses == ["running", "paused", "queued", "running", "done"]


def test_a_study_that_paused_ends_with_the_plan_of_one_that_did_not(runtime: Runtime, tmp_path: Path) -> None:
    spec = simulated_spec()
    with open_archive(f"sqlite:///{tmp_path}/plain.db") as archive:
        archive.studies.create("s", spec.name, spec.model_dump(mode="json"), spec.seed)
        asyncio.run(run_loop(StudyContext(archive, "s", {}, DiceBackends()), InProcessSteps()))
        undisturbed = [t.allocation for t in archive.trials.list("s")]
        plan = archive.plans.get("s").allocation
    study = runtime.submit(spec)
    for _ in range(3):
        until(lambda: runtime.archive.studies.get(study.id).status == "running")
        runtime.pause(study.id)
        wait(runtime, study.id, status="paused")
        runtime.resume(study.id)
    wait(runtime, study.id)
    assert [t.allocation for t in runtime.archive.trials.list(study.id)] == undisturbed
    assert runtime.archive.plans.get(study.id).allocation == plan
    assert runtime.archive.leases.get(study.id).epoch == 4


def test_a_waiting_study_pauses_at_once_and_is_not_started(runtime: Runtime, gate: Gate) -> None:
    gate.open.clear()
    running, waiting = runtime.submit(simulated_spec()), runtime.submit(simulated_spec())
    assert runtime.pause(waiting.id).status == "paused"
    gate.open.set()
    wait(runtime, running.id)
    time.sleep(1)
    assert runtime.archive.studies.get(waiting.id).status == "paused"
    assert runtime.archive.trials.list(waiting.id) == []
    runtime.resume(waiting.id)
    assert wait(runtime, waiting.id).status == "done"


def test_a_pause_that_is_taken_back_in_time_changes_nothing(runtime: Runtime, gate: Gate) -> None:
    gate.open.clear()
    study = runtime.submit(simulated_spec())
    until(lambda: gate.asked)
    runtime.pause(study.id)
    assert runtime.resume(study.id).status == "running"
    gate.open.set()
    assert wait(runtime, study.id).status == "done"


def test_a_study_that_ended_cannot_pause_and_a_paused_one_can_be_cancelled(runtime: Runtime, gate: Gate) -> None:
    gate.open.clear()
    runtime.submit(simulated_spec())
    paused = runtime.submit(simulated_spec())
    runtime.pause(paused.id)
    assert runtime.cancel(paused.id).status == "cancelled"
    with pytest.raises(StatusConflict, match="cancelled and cannot pause"):
        runtime.pause(paused.id)


def test_a_cancel_ends_a_study_within_seconds_while_its_models_do_not_answer(runtime: Runtime, gate: Gate) -> None:
    gate.open.clear()
    study = runtime.submit(simulated_spec())
    until(lambda: gate.asked)
    runtime.cancel(study.id)
    assert wait(runtime, study.id, seconds=5).status == "cancelled"


def test_studies_of_lower_priority_numbers_start_first(runtime: Runtime, gate: Gate) -> None:
    gate.open.clear()
    runtime.submit(simulated_spec())
    until(lambda: gate.asked)
    later, first, second = (runtime.submit(simulated_spec(), priority=priority) for priority in (200, 10, 100))
    gate.open.set()
    ended = [wait(runtime, study.id) for study in (first, second, later)]
    started = [study.started_at for study in ended]
    assert all(started)
    assert started == sorted(started)  # type: ignore[type-var]


def test_queues_say_what_waits_and_runs(runtime: Runtime, gate: Gate) -> None:
    gate.open.clear()
    for _ in range(3):
        runtime.submit(simulated_spec())
    until(lambda: gate.asked)
    [queue] = runtime.queues()
    assert (queue.name, queue.waiting, queue.running, queue.per_worker, queue.total) == ("studies", 2, 1, 1, None)
