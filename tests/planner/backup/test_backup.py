"""A backup holds a service as it was, and a restore never loses what is there."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from planner import run_study
from planner.archive import open_archive, open_engine
from planner.backup import BackupError, Place, back_up, read_manifest, restore
from tests.postgres import PostgresServer
from tests.simulated import DiceBackends, simulated_spec

Damage = Callable[[dict[str, bytes]], None]


def quick_spec() -> dict[str, object]:
    return {"budget": {"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 3}}}


def study_in(url: str, study_id: str = "s1") -> None:
    with open_archive(url) as archive:
        asyncio.run(run_study(simulated_spec(**quick_spec()), archive, study_id, {}, DiceBackends()))


def sqlite_place(home: Path) -> Place:
    return Place(f"sqlite:///{home}/archive.db", f"sqlite:///{home}/jobs.db", home / "datasets")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A service's home with a finished study, a jobs database and a data set."""
    folder = tmp_path / "home"
    study_in(f"sqlite:///{folder}/archive.db")
    with sqlite3.connect(folder / "jobs.db") as jobs:
        jobs.execute("CREATE TABLE workflow_status (id TEXT)")
        jobs.execute("INSERT INTO workflow_status VALUES ('s1')")
    jobs.close()
    (folder / "datasets" / "qa").mkdir(parents=True)
    (folder / "datasets" / "qa" / "rows.jsonl").write_text('{"question": "1"}\n')
    return folder


def test_what_is_restored_is_what_was_there(home: Path, tmp_path: Path) -> None:
    manifest = back_up(sqlite_place(home), tmp_path / "b.tar")
    assert (manifest.kind, manifest.jobs, manifest.data_files) == ("sqlite", True, 1)
    there = tmp_path / "there"
    restored, aside = restore(tmp_path / "b.tar", sqlite_place(there))
    assert restored == manifest == read_manifest(tmp_path / "b.tar")
    assert aside == []
    with open_archive(f"sqlite:///{home}/archive.db") as old, open_archive(f"sqlite:///{there}/archive.db") as new:
        assert new.plans.get("s1").document == old.plans.get("s1").document
        assert [t.score for t in new.trials.list("s1")] == [t.score for t in old.trials.list("s1")]
    # The bank serves later studies.
    study_in(f"sqlite:///{there}/archive.db", "s2")
    with open_archive(f"sqlite:///{there}/archive.db") as new:
        assert sum(t.spend.reused_draws for t in new.trials.list("s2")) > 0
    assert (there / "datasets/qa/rows.jsonl").read_text() == '{"question": "1"}\n'
    jobs = sqlite3.connect(there / "jobs.db")
    assert jobs.execute("SELECT id FROM workflow_status").fetchall() == [("s1",)]
    jobs.close()


def test_a_backup_beside_a_writer_is_one_moment_of_the_archive(tmp_path: Path) -> None:
    place = sqlite_place(tmp_path / "home")
    stop = threading.Event()
    with open_archive(place.archive_url) as archive:

        def write() -> None:
            number = 0
            while not stop.is_set():
                # One transaction: a study and its ledger entry are there together or not at all.
                archive.studies.create(f"s{number}", "busy", {}, 0)
                archive.ledgers.reserve(f"s{number}", "search", "e", "draws", 1.0, None)
                number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for turn in range(3):
                back_up(place, tmp_path / f"{turn}.tar")
        finally:
            stop.set()
            writer.join()
    counts = []
    for turn in range(3):
        there = sqlite_place(tmp_path / f"there-{turn}")
        restore(tmp_path / f"{turn}.tar", there)
        engine = open_engine(there.archive_url)
        with engine.connect() as connection:
            studies = connection.execute(text("SELECT count(*) FROM studies")).scalar_one()
            entries = connection.execute(text("SELECT count(*) FROM ledger_entries")).scalar_one()
            assert connection.execute(text("PRAGMA foreign_key_check")).first() is None
        engine.dispose()
        assert studies - entries in (0, 1)
        counts.append(studies)
    assert counts == sorted(counts)


def test_a_restore_over_an_archive_is_refused_and_with_force_moves_it_aside(home: Path, tmp_path: Path) -> None:
    back_up(sqlite_place(home), tmp_path / "b.tar")
    study_in(f"sqlite:///{home}/archive.db", "later")
    with pytest.raises(BackupError, match="--force"):
        restore(tmp_path / "b.tar", sqlite_place(home))
    with open_archive(f"sqlite:///{home}/archive.db") as archive:
        assert len(archive.studies.list()) == 2
    _, aside = restore(tmp_path / "b.tar", sqlite_place(home), force=True)
    with open_archive(f"sqlite:///{home}/archive.db") as archive:
        assert [s.id for s in archive.studies.list()] == ["s1"]
    with open_archive(f"sqlite:///{aside[0]}") as before:
        assert len(before.studies.list()) == 2


def test_a_restore_under_a_living_worker_is_refused(home: Path, tmp_path: Path) -> None:
    back_up(sqlite_place(home), tmp_path / "b.tar")
    with open_archive(f"sqlite:///{home}/archive.db") as archive:
        archive.workers.beat("worker-1", "host", 1)
        with pytest.raises(BackupError, match="worker-1"):
            restore(tmp_path / "b.tar", sqlite_place(home), force=True)


def rewritten(source: Path, target: Path, damage: Damage) -> Path:
    with tarfile.open(source) as tar:
        parts = {m.name: (tar.extractfile(m) or io.BytesIO()).read() for m in tar.getmembers()}
    damage(parts)
    with tarfile.open(target, "w") as tar:
        for name, body in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return target


def test_a_damaged_backup_changes_nothing(home: Path, tmp_path: Path) -> None:
    back_up(sqlite_place(home), tmp_path / "b.tar")

    def flip(parts: dict[str, bytes]) -> None:
        body = bytearray(parts["archive"])
        body[len(body) // 2] ^= 0xFF
        parts["archive"] = bytes(body)

    there = tmp_path / "there"
    with pytest.raises(BackupError, match="damaged: archive"):
        restore(rewritten(tmp_path / "b.tar", tmp_path / "bad.tar", flip), sqlite_place(there))
    assert not there.exists()


def test_a_backup_with_a_path_out_of_its_folder_is_refused(home: Path, tmp_path: Path) -> None:
    back_up(sqlite_place(home), tmp_path / "b.tar")

    def escape(parts: dict[str, bytes]) -> None:
        parts["../outside"] = b"x"

    with pytest.raises(BackupError, match="cannot be unpacked"):
        restore(rewritten(tmp_path / "b.tar", tmp_path / "bad.tar", escape), sqlite_place(tmp_path / "there"))


def test_a_backup_of_a_newer_version_is_refused(home: Path, tmp_path: Path) -> None:
    back_up(sqlite_place(home), tmp_path / "b.tar")

    def age(parts: dict[str, bytes]) -> None:
        manifest = json.loads(parts["manifest.json"])
        parts["manifest.json"] = json.dumps({**manifest, "schema": "9999_later"}).encode()

    with pytest.raises(BackupError, match="9999_later"):
        restore(rewritten(tmp_path / "b.tar", tmp_path / "new.tar", age), sqlite_place(tmp_path / "there"))


@pytest.mark.parametrize("body", [b"", b"no tar at all", b"\x00" * 2048])
def test_a_file_that_is_no_backup_says_so(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(body)
    with pytest.raises(BackupError, match="no backup"):
        restore(tmp_path / "x.tar", sqlite_place(tmp_path / "there"))


def test_nothing_is_written_over_and_nothing_is_left_behind(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "b.tar"
    with pytest.raises(BackupError, match="no archive"):
        back_up(sqlite_place(tmp_path / "empty"), target)
    back_up(sqlite_place(home), target)
    assert target.stat().st_mode & 0o077 == 0
    with pytest.raises(BackupError, match="exists"):
        back_up(sqlite_place(home), target)
    assert [p.name for p in target.parent.iterdir()] == ["b.tar"]


def test_postgresql_goes_into_a_backup_and_back(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres.database() as here, postgres.database() as there:
        study_in(here)
        manifest = back_up(Place(here, here), tmp_path / "b.tar")
        assert (manifest.kind, manifest.jobs) == ("postgresql", False)
        restore(tmp_path / "b.tar", Place(there, there))
        with open_archive(here) as old, open_archive(there) as new:
            assert new.plans.get("s1").document == old.plans.get("s1").document
        with pytest.raises(BackupError, match="already exists"):
            restore(tmp_path / "b.tar", Place(there, there))
        study_in(there, "later")
        restore(tmp_path / "b.tar", Place(there, there), force=True)
        with open_archive(there) as new:
            assert [s.id for s in new.studies.list()] == ["s1"]
        with pytest.raises(BackupError, match="do not mix"):
            restore(tmp_path / "b.tar", sqlite_place(tmp_path / "there"))
