from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from env.backends._base import Draw, ModelIdentity
from env.execution.evidence import CurvePoint
from planner.archive import (
    Archive,
    ArchiveError,
    KPoint,
    current_revision,
    head_revision,
    migrate,
    open_archive,
    open_engine,
)
from planner.archive.columns import storable
from planner.archive.migration import VERSION_TABLE
from planner.archive.migrations.versions import revision_0003_compact_draws
from planner.archive.pipelines import pipeline_digest
from planner.archive.tables import ArchiveTable
from tests.processes import Crowd

ALLOCATION = json.dumps({"solve": {"model": "m", "strategy": "vote", "samples": 1}})
OLD_SPEC = {"pipeline": {"name": "p", "stages": [{"name": "solve"}]}}
OLD_ROWS: dict[str, list[dict[str, object]]] = {
    "studies": [
        {
            "id": "s", "name": "s", "spec": json.dumps(OLD_SPEC), "status": "done", "proposer": "", "seed": 3,
            "created_at": None, "phase": "", "round": 0, "error": "", "cancel_requested": False,
        }
    ],
    "trials": [
        {
            "study_id": "s", "trial_no": 0, "split": "search", "round": 0, "allocation": ALLOCATION,
            "allocation_key": "solve=m/vote/1", "status": "done", "score": 0.5, "scored": 1, "failed": 0,
            "predicted_cost": 1.0, "unit": "flops", "new_draws": 1, "reused_draws": 0, "prompt_tokens": 1,
            "output_tokens": 1, "spend_cost": 1.0, "seconds": 1.0,
            "curves": json.dumps({"solve": [{"k": 1, "score": 0.5, "coverage": 1.0}]}), "created_at": None,
        }
    ],
    "evidence": [
        {
            "study_id": "s", "trial_no": 0, "example_id": "e", "position": 0, "status": "scored", "score": 0.5,
            "realised": 1.0, "reason": "", "cost": 1.0, "stages": "[]",
            "curves": json.dumps({"solve": [[1, 0.5, 1.0]]}),
        }
    ],
}  # fmt: skip


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    opened = open_engine(empty_url)
    yield opened
    opened.dispose()


def test_an_empty_database_gets_the_schema_the_tables_state(engine: Engine) -> None:
    assert current_revision(engine) is None
    migrate(engine)
    assert current_revision(engine) == head_revision()
    options = {"version_table": VERSION_TABLE, "compare_type": True}
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), ArchiveTable.metadata) == []


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    Archive(engine).studies.create("s", "s", {}, seed=0)
    migrate(engine)
    assert Archive(engine).studies.get("s").id == "s"


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_what_an_earlier_revision_holds_survives_the_upgrade(engine: Engine, revision: str) -> None:
    migrate(engine, revision)
    written = "2026-01-02 03:04:05.000000+00:00"
    with engine.begin() as connection:
        for table, columns in OLD_ROWS.items():
            rows = [
                {name: written if name.endswith("_at") else value for name, value in row.items()} for row in columns
            ]
            names = [f'"{name}"' for name in rows[0]]
            values = ", ".join(f":{name}" for name in rows[0])
            connection.execute(text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"), rows)
    before = Archive(engine)
    before.ledgers.reserve("s", "search", "a", "draws", 1, 2)
    assert current_revision(engine) == revision
    migrate(engine)
    after = Archive(engine)
    study = after.studies.get("s")
    assert (study.seed, study.spec, study.notes) == (3, OLD_SPEC, "")
    assert study.pipeline_digest == pipeline_digest(OLD_SPEC)
    trial = after.trials.get("s", 0)
    assert (trial.score, trial.draws) == (0.5, None)
    assert (trial.spend.seconds, trial.spend.load_seconds) == (1.0, None), "not known apart of older trials"
    assert trial.curves == {"solve": (KPoint(1, 0.5, 1.0),)}
    assert after.trials.evidence("s", 0)[0].curves == {"solve": (CurvePoint(1, 0.5, 1.0),)}
    assert after.ledgers.usage("s", "search").reserved == 1
    assert after.events.append("s", "upgraded", {}) == 1


def test_every_draw_of_an_earlier_revision_survives_the_upgrade(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision_0003_compact_draws, "AT_ONCE", 7)  # prompts are split between two pages
    draws = {
        hashlib.sha256(str(n).encode()).hexdigest(): [
            Draw(i, ("", "same", f"NUL \0 and \ud83e, {n} {i}", "long " * 99)[(n + i) % 4], "stop", 9, i, -0.1 - 0.2)
            for i in range(1 + n % 5)
        ]
        for n in range(40)
    }
    draws["f" * 64] = [Draw(0, "", "score", 4, 0, None, 1 / 3, "study/round-1")]
    draws["e" * 64] = [Draw(2, "cut", "length", 4, 8, None, None, "study/round-2")]
    migrate(engine, "0002")
    insert = text(
        'INSERT INTO draws (prompt_key, "index", model_name, model_revision, text, finish_reason, prompt_tokens, '
        "output_tokens, logprob, score, origin, created_at) VALUES (:key, :index, :model, 'r', :text, :finish_reason, "
        ":prompt_tokens, :output_tokens, :logprob, :score, :origin, '2026-01-02 03:04:05')"
    )
    with engine.begin() as connection:
        for key, batch in draws.items():
            for draw in batch:
                model = "judge" if draw.finish_reason == "score" else "small"
                row = {**asdict(draw), "key": key, "model": model, "text": storable(draw.text)}
                row.pop("text_dropped")
                connection.execute(insert, row)
    migrate(engine)
    bank = Archive(engine).bank
    assert bank.held(list(draws)) == {key: tuple(batch) for key, batch in draws.items()}
    assert bank.settle(ModelIdentity("small", "r"), draws) == 0
    with engine.connect() as connection:
        assert set(connection.execute(text("SELECT name FROM models")).scalars()) == {"small", "judge"}
        assert set(connection.execute(text("SELECT created_at FROM draws")).scalars()) == {1767323045}
        assert connection.execute(text("SELECT count(*) FROM texts WHERE length = 4")).scalar() == 1


def test_an_archive_newer_than_the_code_is_left_alone(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    for upgrade in (True, False):
        with pytest.raises(ArchiveError, match=r"at revision 9999.*upgrade apportion"):
            open_archive(engine.url.render_as_string(hide_password=False), upgrade=upgrade)
    assert current_revision(engine) == "9999"


def test_an_older_or_empty_archive_is_not_opened_without_leave_to_upgrade(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    with pytest.raises(ArchiveError, match="has not been set up; migrate it"):
        open_archive(url, upgrade=False)
    migrate(engine, "0001")
    with pytest.raises(ArchiveError, match="is at revision 0001; migrate it"):
        open_archive(url, upgrade=False)
    migrate(engine)
    open_archive(url, upgrade=False).close()


def test_a_revision_that_fails_leaves_nothing_behind(engine: Engine) -> None:
    migrate(engine, "0001")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE events (id INTEGER)"))
    with pytest.raises(ArchiveError, match="already exists"):
        migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE events"))
    assert current_revision(engine) == "0001"
    migrate(engine)
    assert Archive(engine).schedules.list() == []


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    processes = Crowd(4)
    yield processes
    processes.close()


def test_processes_that_start_at_once_migrate_once(crowd: Crowd, empty_url: str, tmp_path: Path) -> None:
    (tmp_path / "meet").mkdir()
    assert crowd.at_once(_migrated, empty_url, tmp_path / "meet") == [head_revision()] * 4


def _migrated(url: str) -> str | None:
    engine = open_engine(url)
    migrate(engine)
    revision = current_revision(engine)
    engine.dispose()
    return revision


def test_threads_that_start_at_once_migrate_once(engine: Engine) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate, [engine] * 4))
    assert current_revision(engine) == head_revision()


def test_migrating_leaves_the_logging_of_the_application_alone(engine: Engine) -> None:
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    migrate(engine)
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
