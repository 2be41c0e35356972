"""kill -9 of the worker amid a re-validation: another one ends the run, with one trial and no draw lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from env.execution.drawing import FLUSH_DRAWS
from planner.archive import open_archive
from tests.faults.test_killed_studies import REPOSITORY, Place, finish, settled
from tests.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]


def start(place: Place, action: str) -> subprocess.Popen[str]:
    arguments = [place.archive, place.jobs, str(place.log), action]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.schedule_worker", *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )


def drawn(place: Place) -> list[str]:
    return place.log.read_text().splitlines() if place.log.exists() else []


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_run_whose_worker_is_killed_is_ended_by_another(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = Place.sqlite(tmp_path)
    if database == "postgresql":
        url = request.getfixturevalue("postgres_url")
        place = Place(url, url, tmp_path / "draws.log")
    assert finish(start(place, "run")) == "searched"
    before, held = len(drawn(place)), settled(place)

    killed = start(place, "run")
    deadline = time.monotonic() + 60
    while len(drawn(place)) < before + 30 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert finish(start(place, "wait")) == "revalidated"

    with open_archive(place.archive) as archive:
        runs = archive.schedule_runs.list("nightly")
        assert [(run.number, run.outcome) for run in runs] == [(2, "revalidated"), (1, "searched")]
        trials = archive.trials.list(str(runs[0].incumbent_study), "revalidation")
        check = dict(runs[0].check or {})
    assert [trial.trial_no for trial in trials] == [runs[0].trial_no]
    assert check["reused_draws"] == 0
    fresh = Counter(drawn(place)[before:])
    assert sum(count - 1 for count in fresh.values()) <= FLUSH_DRAWS
    asked = {(key, int(index)) for key, index in (line.split() for line in fresh)}
    assert asked.isdisjoint(held)
    assert asked == settled(place) - held
