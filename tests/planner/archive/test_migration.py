from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from env.backends._base import Draw, ModelIdentity
from planner.archive import Archive, ArchiveError, current_revision, head_revision, migrate, open_archive, open_engine
from planner.archive.migration import VERSION_TABLE
from planner.archive.tables import ArchiveTable
from tests.planner.archive.samples import a_result
from tests.processes import Crowd


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


def test_what_the_previous_revision_holds_survives_the_upgrade(engine: Engine) -> None:
    migrate(engine, "0001")
    before = Archive(engine)
    before.studies.create("s", "s", {"version": 1}, seed=3)
    before.trials.record("s", 0, "search", 0, a_result(), "flops")
    before.bank.settle(ModelIdentity("m", "r"), {"key": [Draw(0, "text", "stop", 1, 1)]})
    before.ledgers.reserve("s", "search", "a", "draws", 1, 2)
    held = (before.studies.get("s"), before.trials.get("s", 0), before.trials.evidence("s", 0))
    assert current_revision(engine) == "0001"
    migrate(engine)
    after = Archive(engine)
    assert (after.studies.get("s"), after.trials.get("s", 0), after.trials.evidence("s", 0)) == held
    assert len(after.bank.held(["key"])["key"]) == 1
    assert after.ledgers.usage("s", "search").reserved == 1
    assert after.events.append("s", "upgraded", {}) == 1


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
