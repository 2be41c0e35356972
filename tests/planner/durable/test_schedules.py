"""Schedules on real DBOS, SQLite and PostgreSQL, with simulated models."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from env.spec import StudySpec
from planner.archive import Archive, RunRecord, SchedulePlan, StatusConflict
from planner.durable import Runtime, schedules, workflows
from planner.durable.schedules import run_now
from planner.loop import StudyContext
from planner.schedules import revalidation
from tests import simulated
from tests.postgres import postgres, postgres_url
from tests.simulated import DiceBackends, simulated_spec

__all__ = ["postgres", "postgres_url"]

NEVER = "0 0 1 1 *"
SECRET_ENV = "TEST_SCHEDULE_SECRET"


@pytest.fixture
def dice(monkeypatch: pytest.MonkeyPatch) -> DiceBackends:
    """The models of all studies and re-validations; a schedule's ticks are short."""
    return use_dice(monkeypatch)


def use_dice(monkeypatch: pytest.MonkeyPatch) -> DiceBackends:
    backends = DiceBackends()

    class Opened:
        """What a re-validation opens and closes."""

        backend = staticmethod(backends.backend)

        async def close(self) -> None:
            pass

    monkeypatch.setattr(workflows, "StudyContext", lambda archive, study: StudyContext(archive, study, {}, backends))
    monkeypatch.setattr(revalidation, "open_backends", lambda spec, tenant: Opened())
    monkeypatch.setattr(schedules, "TICK_S", 0.1)
    return backends


@pytest.fixture
def urls(tmp_path: Path) -> tuple[str, str]:
    return urls_in(tmp_path)


def urls_in(folder: Path) -> tuple[str, str]:
    return f"sqlite:///{folder}/archive.db", f"sqlite:///{folder}/jobs.db"


@pytest.fixture
def runtime(urls: tuple[str, str], dice: DiceBackends) -> Iterator[Runtime]:
    with Runtime(*urls) as opened:
        yield opened


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose schedule `nightly` has run once, and found a plan."""
    folder = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch:
        use_dice(patch)
        with Runtime(*urls_in(folder)) as opened:
            opened.archive.schedules.create("nightly", plan())
            ran(opened.archive)
    return folder


@pytest.fixture
def later(template: Path, tmp_path: Path, dice: DiceBackends) -> Iterator[Runtime]:
    """A runtime on a copy of that."""
    for file in template.iterdir():
        shutil.copy(file, tmp_path / file.name)
    with Runtime(*urls_in(tmp_path)) as opened:
        yield opened


def small_spec(**changes: Any) -> StudySpec:
    """A search of a second; every allocation of one model can be told from one of the other."""
    return simulated_spec(**{"budget": {"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 6}}, **changes})


def plan(spec: StudySpec | None = None, **changes: Any) -> SchedulePlan:
    raw = (spec or small_spec()).model_dump(mode="json")
    return SchedulePlan(**{"spec": raw, "cron": NEVER, **changes})


def until(look: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def ended(archive: Archive, run: RunRecord) -> RunRecord:
    return until(lambda: (held := archive.schedule_runs.get(run.id)).status == "ended" and held)


def ran(archive: Archive, name: str = "nightly") -> RunRecord:
    """One more run of a schedule, to its end."""
    return ended(archive, run_now(archive, name))


@pytest.fixture
def searched(later: Runtime) -> RunRecord:
    """The first run of the schedule `nightly`."""
    return later.archive.schedule_runs.list("nightly")[0]


def test_the_first_run_searches_and_the_next_finds_its_plan_still_good_on_fresh_draws(
    later: Runtime, searched: RunRecord
) -> None:
    archive = later.archive
    assert searched.outcome == "searched", searched.reason
    assert searched.reason.startswith("no plan has been found yet")
    study = archive.studies.get(str(searched.new_study))
    assert (study.schedule_name, study.seed, study.status) == ("nightly", searched.seed, "done")
    diff: Any = searched.diff
    assert (diff["plan"]["before"], diff["score"]["before"]) == (None, None)
    after = diff["score"]["after"]
    assert after["low"] < after["estimate"] <= after["high"]

    again = ran(archive)
    assert again.outcome == "revalidated", again.reason
    assert again.reason.startswith("still good")
    assert (again.incumbent_study, again.new_study) == (study.id, None)
    check: Any = again.check
    assert check["reused_draws"] == 0
    assert check["new_draws"] >= check["draws"] > 0
    assert again.seed != searched.seed
    diff = again.diff
    assert not diff["plan"]["changed"]
    assert diff["score"]["verdict"] == "cannot be told apart"
    assert diff["score"]["difference"]["low"] <= 0 <= diff["score"]["difference"]["high"]
    assert diff["cost"]["before"] is not None
    assert diff["cost"]["difference"]["examples"] == 30
    trial = archive.trials.get(study.id, int(again.trial_no or 0))
    # Held against the search's own draws the count is not 0: it does count.
    assert revalidation.drawn_before(archive, again, revalidation.held_plan(archive, study.id)) > 0
    assert (trial.split, trial.score) == ("revalidation", diff["score"]["after"]["estimate"])
    assert len(archive.studies.list()) == 1


def test_a_plan_whose_score_moved_is_searched_anew_on_fresh_draws(
    later: Runtime, searched: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights behind a URL changed without a word: the large model cannot read any more, the small one can."""
    worse = {**simulated.ACCURACY, "read": {"small": 0.9, "large": 0.1}}
    monkeypatch.setattr(simulated, "ACCURACY", worse)
    run = ran(later.archive)
    assert run.outcome == "searched", run.reason
    assert "moved beyond its error" in run.reason
    check: Any = run.check
    assert check["moved"]
    assert check["score"]["verdict"] == "worse"
    assert check["score"]["difference"]["high"] < 0
    diff: Any = run.diff
    assert diff["score"]["verdict"] == "better"
    assert "read" in {stage["stage"] for stage in diff["plan"]["stages"]}
    study = later.archive.studies.get(str(run.new_study))
    assert study.seed == run.seed
    assert study.spec["proposer"]["warm_start"]
    assert later.archive.schedules.get("nightly").plan.incumbent_study == study.id
    assert ran(later.archive).outcome == "revalidated"


def test_changed_data_or_candidates_are_searched_anew_though_the_score_held(
    later: Runtime, searched: RunRecord
) -> None:
    archive = later.archive
    raw = small_spec().model_dump(mode="json")
    raw["data"]["rows"][0]["answer"] = "other"
    archive.schedules.change("nightly", replace(archive.schedules.get("nightly").plan, spec=raw))
    run = ran(archive)
    assert (run.outcome, run.check is not None) == ("searched", True)
    assert run.reason.startswith("the data changed")
    raw["pipeline"]["models"]["small"]["revision"] = "2"
    archive.schedules.change("nightly", replace(archive.schedules.get("nightly").plan, spec=raw))
    run = ran(archive)
    assert run.outcome == "searched"
    assert "candidate small has another revision" in run.reason


def test_a_named_plan_is_checked_first_and_one_that_may_not_run_is_not(later: Runtime, searched: RunRecord) -> None:
    archive = later.archive
    archive.schedules.create("other", plan(incumbent_study=searched.new_study))
    run = ran(archive, "other")
    assert (run.outcome, run.incumbent_study) == ("revalidated", searched.new_study)
    tight = small_spec(budget={"plan": {"limit": 2e11, "unit": "flops"}, "search": {"trials": 4}})
    archive.schedules.create("tight", plan(tight, incumbent_study=searched.new_study))
    run = ran(archive, "tight")
    assert run.outcome == "searched"
    assert "may not run any more: over budget" in run.reason


def test_models_that_are_down_fail_the_run_and_touch_nothing_else(
    later: Runtime, searched: RunRecord, dice: DiceBackends
) -> None:
    dice._fails = 10_000
    run = ran(later.archive)
    assert run.outcome == "failed"
    assert "0 of 30 examples could be evaluated" in run.reason
    assert "the dice fell off the table" in run.reason
    assert len(later.archive.studies.list()) == 1
    for backend in (dice, *dice.open.values()):
        backend._fails = 0
    assert ran(later.archive).outcome == "revalidated"


def test_a_spec_that_went_bad_fails_the_run_with_its_faults(runtime: Runtime) -> None:
    bad = small_spec().model_dump(mode="json")
    bad["pipeline"]["stages"][0]["models"] = ["gone"]
    runtime.archive.schedules.create("rotten", replace(plan(), spec=bad))
    run = ran(runtime.archive, "rotten")
    assert run.outcome == "failed"
    assert "no model 'gone'" in run.reason


def test_cron_fires_in_the_real_clock_and_overlap_is_skipped(runtime: Runtime) -> None:
    archive = runtime.archive
    archive.schedules.create("often", plan(cron="* * * * * *", timezone="Europe/Berlin"))
    until(lambda: len([r for r in archive.schedule_runs.list("often") if r.outcome == "revalidated"]) >= 1)
    archive.schedules.set_paused("often", True)
    runs = archive.schedule_runs.list("often")
    assert runs[-1].outcome == "searched"
    assert {run.outcome for run in runs} <= {"searched", "revalidated", "skipped", None}
    dues = [run.due for run in runs]
    assert dues == sorted(set(dues), reverse=True)
    assert len(archive.studies.list()) == 1


def test_a_restart_after_missed_firings_does_as_the_policy_says(urls: tuple[str, str], dice: DiceBackends) -> None:
    with Runtime(*urls, work=False) as idle:
        for missed in ("skip", "latest"):
            idle.archive.schedules.create(missed, plan(cron="0 * * * *", missed=missed))
        before = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3, minutes=-30)
        with idle.archive.engine.begin() as connection:
            connection.execute(
                text("UPDATE schedules SET considered_until = :moment"), {"moment": f"{before:%F %T.%f}"}
            )
    with Runtime(*urls) as back:
        latest = until(lambda: back.archive.schedule_runs.list("latest"))
        assert [run.outcome for run in ended_all(back.archive, latest)] == ["searched", "missed"]
        (skipped,) = back.archive.schedule_runs.list("skip")
        assert skipped.outcome == "missed"
        assert skipped.reason.startswith("3 firings")


def ended_all(archive: Archive, runs: list[RunRecord]) -> list[RunRecord]:
    return [ended(archive, run) for run in runs]


def test_run_now_is_refused_during_a_run_unless_overlap_allows_it(
    runtime: Runtime, dice: DiceBackends, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = runtime.archive
    with stopped(monkeypatch):
        archive.schedules.create("skips", plan())
        run_now(archive, "skips")
        with pytest.raises(StatusConflict, match="run 1 was still under way"):
            run_now(archive, "skips")
        archive.schedules.create("queues", plan(overlap="queue"))
        queued = [run_now(archive, "queues") for _ in range(2)]
        archive.schedules.create("cancels", plan(overlap="cancel"))
        older, newer = run_now(archive, "cancels"), run_now(archive, "cancels")
    assert [run.outcome for run in ended_all(archive, queued)] == ["searched", "revalidated"]
    assert ended(archive, older).outcome == "cancelled"
    assert ended(archive, newer).outcome == "searched"


@contextmanager
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is handed over meanwhile."""
    with monkeypatch.context() as patch:
        patch.setattr(schedules.Ticker, "_hand_over", lambda self, watch: None)
        yield


def test_a_run_cancelled_during_its_search_ends_with_it(runtime: Runtime) -> None:
    archive = runtime.archive
    archive.schedules.create("nightly", plan(simulated_spec()))
    run = run_now(archive, "nightly")
    until(lambda: archive.schedule_runs.get(run.id).status == "searching")
    archive.schedule_runs.request_cancel(run.id)
    held = ended(archive, run)
    assert held.outcome == "cancelled"
    assert archive.studies.get(str(held.new_study)).status == "cancelled"


def test_a_schedule_deleted_during_a_run_takes_the_run_with_it(runtime: Runtime) -> None:
    archive = runtime.archive
    archive.schedules.create("nightly", plan())
    run = run_now(archive, "nightly")
    until(lambda: archive.schedule_runs.get(run.id).status == "searching")
    assert archive.schedules.delete("nightly")
    study = until(lambda: [s for s in archive.studies.list() if s.status == "done"])
    assert study[0].schedule_name == "nightly"
    archive.schedules.create("nightly", plan())
    assert archive.schedule_runs.list("nightly") == []


def test_new_data_in_a_file_fires_a_schedule(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "WATCH_S", 0.1)
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    rows = [{"question": f"{n}", "answer": f"{n}"} for n in range(1000, 1060)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    spec = small_spec(data={"source": "file", "path": "rows.jsonl", "search": 30, "test": 30})
    archive = runtime.archive
    archive.schedules.create("watching", plan(spec, cron=None, on_change=("data",)))
    until(lambda: archive.schedules.get("watching").observed)
    assert archive.schedule_runs.list("watching") == []
    file.write_text("\n".join(map(json.dumps, [*rows, {"question": "1060", "answer": "1060"}])))
    (run,) = until(lambda: archive.schedule_runs.list("watching"))
    assert (run.cause, run.reason) == ("change", "the data changed")
    assert ended(archive, run).outcome == "searched"


@pytest.mark.parametrize("database", ["postgresql"])
def test_the_same_on_postgresql(postgres_url: str, dice: DiceBackends, database: str) -> None:
    with Runtime(postgres_url, postgres_url) as runtime:
        runtime.archive.schedules.create("nightly", plan())
        assert ran(runtime.archive).outcome == "searched"
        again = ran(runtime.archive)
        assert again.outcome == "revalidated", again.reason
        check: Mapping[str, Any] = again.check or {}
        assert check["reused_draws"] == 0
