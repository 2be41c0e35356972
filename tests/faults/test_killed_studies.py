"""kill -9 of a working process at random moments: nothing settled is lost or drawn again, and the plan is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text

from env.execution.evidence import ExampleEvidence
from planner.archive import open_archive
from tests.postgres import postgres, postgres_url

__all__ = ["postgres", "postgres_url"]

REPOSITORY = Path(__file__).parents[2]
Draws = set[tuple[str, int]]


@dataclass(frozen=True)
class Place:
    """Where one study runs."""

    archive: str
    jobs: str
    log: Path

    @classmethod
    def sqlite(cls, folder: Path) -> Place:
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"sqlite:///{folder}/archive.db", f"sqlite:///{folder}/jobs.db", folder / "draws.log")


@dataclass(frozen=True)
class Result:
    """What a study left, without what may differ: times and names."""

    plan: object
    trials: list[object]
    evidence: list[tuple[ExampleEvidence, ...]]


def start(place: Place, action: str) -> subprocess.Popen[str]:
    arguments = [place.archive, place.jobs, str(place.log), action, "s1"]
    command = [sys.executable, "-m", "tests.faults.dice_worker", *arguments]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.split()[-1]


def result(place: Place) -> Result:
    with open_archive(place.archive) as archive:
        trials = archive.trials.list("s1")
        document = dict(archive.plans.get("s1").document)
        return Result(
            document,
            [replace(t, created_at=None, spend=replace(t.spend, seconds=0.0)) for t in trials],  # type: ignore[arg-type]
            [archive.trials.evidence("s1", t.trial_no) for t in trials],
        )


def settled(place: Place) -> Draws:
    with open_archive(place.archive) as archive, archive.engine.connect() as connection:
        rows = connection.execute(text('select p.key, d."index" from draws d join prompts p on p.id = d.prompt_id'))
        return {(bytes(key).hex(), index) for key, index in rows}


def drawn(place: Place) -> list[tuple[str, int]]:
    if not place.log.exists():
        return []
    return [(key, int(index)) for key, index in (line.split() for line in place.log.read_text().splitlines())]


def kill_and_resume(place: Place, generator: random.Random, longest: float) -> int:
    """Start, kill at a random moment, resume until done; returns how many kills hit a study at work."""
    process = start(place, "submit")
    assert process.stdout is not None
    process.stdout.readline()
    hits = 0
    while True:
        time.sleep(generator.uniform(0.05, longest))
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not alive:
            return hits
        hits += 1
        kept, before = settled(place), len(drawn(place))
        process = start(place, "resume")
        if generator.random() < 0.6:
            assert finish(process) == "done"
            again = set(drawn(place)[before:])
            assert not again & kept, "a settled draw was drawn again"
            return hits
        assert process.stdout is not None
        process.stdout.readline()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    place = Place.sqlite(tmp_path_factory.mktemp("undisturbed"))
    assert finish(start(place, "submit")) == "done"
    return result(place)


def check(place: Place, undisturbed: Result) -> None:
    found = result(place)
    numbers = Counter(t.trial_no for t in found.trials)  # type: ignore[attr-defined]
    assert set(numbers.values()) == {1}
    assert found.plan == undisturbed.plan
    assert found.trials == undisturbed.trials
    assert found.evidence == undisturbed.evidence


@pytest.mark.faults
def test_a_study_killed_twice_ends_with_the_same_plan(tmp_path: Path, undisturbed: Result) -> None:
    place = Place.sqlite(tmp_path / "a")
    hits = kill_and_resume(place, random.Random(1), 0.9)
    assert hits >= 1
    check(place, undisturbed)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_twenty_random_kills_on_sqlite_change_nothing(tmp_path: Path, undisturbed: Result) -> None:
    generator, hits, study = random.Random(20), 0, 0
    while hits < 20:
        place = Place.sqlite(tmp_path / str(study))
        hits += kill_and_resume(place, generator, 1.2)
        check(place, undisturbed)
        study += 1


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_five_random_kills_on_postgresql_change_nothing(
    tmp_path: Path, postgres: object, undisturbed: Result, request: pytest.FixtureRequest
) -> None:
    from tests.postgres import PostgresServer

    assert isinstance(postgres, PostgresServer)
    generator, hits, study = random.Random(5), 0, 0
    while hits < 5:
        with postgres.database() as url:
            place = Place(url, url, tmp_path / f"{study}.log")
            hits += kill_and_resume(place, generator, 1.5)
            check(place, undisturbed)
        study += 1
