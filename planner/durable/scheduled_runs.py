"""The durable workflows of a schedule: one run, the end of one that searched, and the delivery of an alert.

A run that searches does not wait for its study: it ends when the ticker sees that the study has ended, whoever ran it
and however often it was paused, resumed or taken over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from dbos import DBOS, SetWorkflowID

from env.errors import ApportionError
from env.execution import Progress
from env.spec import SpecError, StudySpec
from planner.archive import Archive, NotFound, RunRecord, ScheduleRecord
from planner.archive.schedule_records import AlertStatus, RunOutcome
from planner.archive.statuses import TERMINAL
from planner.check import validated_spec
from planner.durable.workflows import STUDIES, bound_archive, study_workflow
from planner.loop import drop_old_texts
from planner.schedules import alerts, webhooks
from planner.schedules.diff import RunDiff, revalidation, run_diff
from planner.schedules.fingerprint import Fingerprints, changes
from planner.schedules.revalidation import (
    Held,
    difference,
    drawn_before,
    held_plan,
    misfit,
    moved,
    next_number,
    revalidate,
    score_words,
)

RUNS = "schedules"
"""The queue runs wait in."""

ALERTS = "alerts"
"""The queue deliveries wait in: apart, so that a receiver that is down holds up no run."""

CONCURRENT = {RUNS: 2, ALERTS: 32}
"""Workflows of a queue that one worker runs at a time. A delivery mostly sleeps."""

BACKOFF_S = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Pauses between attempts at a delivery; after the last one it is given up."""

log = logging.getLogger(__name__)
_fingerprints = Fingerprints()
"""Of this process, so that no checkpoint is read again for every run."""


class RunCancelled(ApportionError):
    """Somebody asked the run to stop, or deleted its schedule."""


@DBOS.workflow(name="schedule_run")
async def schedule_run(run_id: str) -> str:
    """Check the incumbent of a schedule and search where that is needed; returns what became of the run."""
    return await _guarded(run_id, _run)


@DBOS.workflow(name="schedule_run_end")
async def schedule_run_end(run_id: str) -> str:
    """End a run whose search has ended; returns its outcome."""
    return await _guarded(run_id, _conclude)


@DBOS.workflow(name="deliver_alert")
async def deliver_alert(run_id: str) -> str:
    """Deliver an alert, again and again with growing pauses until it is taken; returns how that ended."""
    archive = bound_archive()
    for number in range(1, len(BACKOFF_S) + 2):
        status = await DBOS.run_step_async({"name": f"attempt-{number}"}, _attempt, archive, run_id, number)
        if status != "pending":
            return status
        await DBOS.sleep_async(BACKOFF_S[number - 1])
    return "failed"


async def _guarded(run_id: str, work: Callable[[Archive, str], Any]) -> str:
    """Run a workflow's body; whatever it raises ends the run with the reason, and nothing but the run."""
    archive = bound_archive()
    try:
        return str(await work(archive, run_id))
    except RunCancelled as error:
        return await _end(archive, run_id, "cancelled", str(error))
    except ApportionError as error:
        return await _end(archive, run_id, "failed", str(error))
    except Exception as error:
        log.exception("run %s of a schedule failed by a fault of the program", run_id)
        return await _end(archive, run_id, "failed", f"internal error ({type(error).__name__}): {error}")


async def _run(archive: Archive, run_id: str) -> str:
    begun = await DBOS.run_step_async({"name": "begin"}, _begin, archive, run_id)
    decision = await DBOS.run_step_async({"name": "check"}, _check, archive, run_id, begun)
    if not decision["search"]:
        await DBOS.run_step_async({"name": "drop-old-texts"}, drop_old_texts, archive, decision["incumbent"])
        return await _end(
            archive, run_id, "revalidated", decision["reason"], decision["check"], decision["diff"], begun["found"]
        )
    study_id = await DBOS.run_step_async({"name": "search"}, _search, archive, run_id, decision)
    with SetWorkflowID(study_id):
        await DBOS.enqueue_workflow_async(STUDIES, study_workflow, study_id)
    return "searching"


async def _begin(archive: Archive, run_id: str) -> dict[str, Any]:
    """Look at data and candidates, and settle which plan is checked; later steps go by what this one found."""
    run = archive.schedule_runs.get(run_id)
    schedule = archive.schedules.get(run.schedule_name)
    spec = _spec(schedule)
    found = await asyncio.to_thread(_fingerprints.of, spec)
    incumbent = schedule.plan.incumbent_study
    number = None
    words = "no plan has been found yet"
    if incumbent is not None:
        try:
            held = held_plan(archive, incumbent)
        except NotFound as error:
            words, incumbent = f"the plan to check is gone: {error}", None
        else:
            words = misfit(spec, held.allocation)
            if words:
                words = f"the plan of study {incumbent} may not run any more: {words}"
            else:
                number = next_number(archive, incumbent)
    run = archive.schedule_runs.start(run_id, found, incumbent, number)
    return {"found": dict(run.found or {}), "words": words}


async def _check(archive: Archive, run_id: str, begun: dict[str, Any]) -> dict[str, Any]:
    """Re-validate the incumbent and decide whether to search."""
    run = archive.schedule_runs.get(run_id)
    schedule = archive.schedules.get(run.schedule_name)
    _refuse_cancelled(archive, run_id)
    decision: dict[str, Any] = {"search": True, "incumbent": run.incumbent_study, "check": None, "diff": None}
    if run.incumbent_study is None or run.trial_no is None:
        return {**decision, "reason": begun["words"]}
    held = held_plan(archive, run.incumbent_study)

    def watch(_: Progress) -> None:
        _refuse_cancelled(archive, run_id)

    fresh = await revalidate(archive, run, _spec(schedule), held, watch)
    found = difference(held, fresh)
    reasons = changes(schedule.plan.baseline, begun["found"], ("data", "models")) if schedule.plan.baseline else []
    if moved(found):
        assert found is not None
        reasons.append(f"the score of the plan moved beyond its error ({score_words(found)})")
    elif found is None and not reasons:
        reasons.append("the examples are not those that the plan was found on")
    reused = drawn_before(archive, run, fresh)
    check = revalidation(held, fresh, run.seed, reused).model_dump(mode="json")
    if reasons:
        return {**decision, "reason": "; ".join(reasons), "check": check}
    assert found is not None
    words = f"still good: its score did not move beyond its error ({score_words(found)})"
    return {
        **decision,
        "search": False,
        "reason": words,
        "check": check,
        "diff": run_diff(held, fresh).model_dump(mode="json"),
    }


async def _search(archive: Archive, run_id: str, decision: dict[str, Any]) -> str:
    """Enter the study that searches anew: on the run's seed, as the bank's draws may be those of what has changed."""
    _refuse_cancelled(archive, run_id)
    run = archive.schedule_runs.get(run_id)
    spec = _spec(archive.schedules.get(run.schedule_name))
    fresh = spec.model_copy(update={"seed": run.seed})
    study_id = hashlib.sha256(f"schedule-run/{run_id}".encode()).hexdigest()[:12]
    raw = fresh.model_dump(mode="json")
    key = f"schedule/{run_id}"
    study = archive.studies.create(study_id, fresh.name, raw, fresh.seed, key, run.schedule_name)
    archive.schedule_runs.searching(run_id, study.id, decision["reason"], decision["check"])
    return study.id


async def _conclude(archive: Archive, run_id: str) -> str:
    outcome, reason, diff, adopted = await DBOS.run_step_async({"name": "compare"}, _compare, archive, run_id)
    run = archive.schedule_runs.get(run_id)
    if adopted is not None:
        await DBOS.run_step_async({"name": "adopt"}, _adopt, archive, run_id, adopted)
    return await _end(archive, run_id, outcome, reason, run.check, diff)


async def _compare(archive: Archive, run_id: str) -> tuple[RunOutcome, str, dict[str, Any] | None, str | None]:
    """What the search came to: outcome, reason, diff, and the study whose plan is the incumbent from now on."""
    run = archive.schedule_runs.get(run_id)
    assert run.new_study is not None
    study = archive.studies.get(run.new_study)
    if study.status == "cancelled":
        return "cancelled", f"{run.reason}; the search was cancelled", None, None
    if study.status == "failed":
        return "failed", f"{run.reason}; the search failed: {study.error}", None, None
    before = _checked(archive, run)
    after = held_plan(archive, study.id)
    diff = run_diff(before, after)
    words, adopted = _verdict(run, study.id, diff)
    return "searched", f"{run.reason}; {words}", diff.model_dump(mode="json"), adopted


def _verdict(run: RunRecord, new_study: str, diff: RunDiff) -> tuple[str, str]:
    """What is said of a search's plan, and whose plan is kept: the new one, unless it is worse beyond its error."""
    if run.incumbent_study is not None and diff.score.verdict == "worse":
        return f"the plan found is worse, so that of study {run.incumbent_study} is kept", run.incumbent_study
    if run.incumbent_study is not None and not diff.plan.changed:
        return "the search found the same plan again", new_study
    return f"study {new_study} found the plan to use", new_study


def _checked(archive: Archive, run: RunRecord) -> Held | None:
    """The incumbent as the run's own re-validation saw it; None where there was none."""
    if run.incumbent_study is None or run.trial_no is None:
        return None
    held = held_plan(archive, run.incumbent_study)
    trial = archive.trials.get(run.incumbent_study, run.trial_no)
    evidence = archive.trials.evidence(run.incumbent_study, run.trial_no)
    return Held(held.study_id, held.document, trial, evidence)


async def _adopt(archive: Archive, run_id: str, study_id: str) -> None:
    run = archive.schedule_runs.get(run_id)
    archive.schedules.set_incumbent(run.schedule_name, study_id, dict(run.found or {}))


async def _end(
    archive: Archive,
    run_id: str,
    outcome: RunOutcome,
    reason: str,
    check: Mapping[str, Any] | None = None,
    diff: Mapping[str, Any] | None = None,
    found: Mapping[str, Any] | None = None,
) -> str:
    """End a run and enter its alert; a run that went with its schedule needs neither."""

    async def end() -> str:
        try:
            run = archive.schedule_runs.end(run_id, outcome, reason, check, diff)
            schedule = archive.schedules.get(run.schedule_name)
            if found is not None and schedule.plan.baseline is None:
                # The plan holds on this data and these candidates: changes count from them.
                archive.schedules.set_incumbent(run.schedule_name, schedule.plan.incumbent_study, found)
            enter_alert(archive, schedule, run)
        except NotFound:
            return "gone"
        return str(run.outcome)

    return await DBOS.run_step_async({"name": "end"}, end)


def enter_alert(archive: Archive, schedule: ScheduleRecord, run: RunRecord) -> None:
    """Enter the alert about a run that has ended, where its schedule wants one; the ticker has it delivered."""
    target = schedule.plan.alert
    if target is not None and alerts.wanted(target, run):
        archive.alerts.enter(run, target, alerts.body(run, str(schedule.plan.spec.get("name", ""))))


async def _attempt(archive: Archive, run_id: str, number: int) -> AlertStatus:
    try:
        alert = archive.alerts.get(run_id)
        if alert.status != "pending":
            return alert.status
        at = datetime.now(UTC).isoformat(timespec="seconds")
        attempt = await webhooks.deliver(alert.url, alert.secret_env, run_id, alert.body, os.environ)
        status: AlertStatus = "delivered" if attempt.verdict == "delivered" else "pending"
        if attempt.verdict == "refused" or (status == "pending" and number > len(BACKOFF_S)):
            status = "failed"
        return archive.alerts.attempted(run_id, attempt.to_json(number, at), status).status
    except NotFound:
        return "failed"  # the run was forgotten, or its schedule deleted: there is nobody to tell


def _refuse_cancelled(archive: Archive, run_id: str) -> None:
    if archive.schedule_runs.cancel_requested(run_id):
        raise RunCancelled("the run was cancelled before it came to an end")


def _spec(schedule: ScheduleRecord) -> StudySpec:
    """A schedule's spec, checked again: what was valid when it was entered may not be now.

    Raises:
        ApportionError: with every fault.
    """
    try:
        return validated_spec(dict(schedule.plan.spec))
    except SpecError as error:
        raise ApportionError(f"the schedule's spec is not usable any more: {error}") from error


def search_ended(archive: Archive, run: RunRecord) -> bool:
    """Whether the study that a run waits for has ended."""
    try:
        return run.new_study is not None and archive.studies.get(run.new_study).status in TERMINAL
    except NotFound:
        return True
