from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from planner.archive import Archive, ArchiveError, open_archive, open_engine
from planner.archive.connection import explained
from tests.planner.archive.samples import a_result
from tests.postgres import PostgresServer


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_psycopg_3(scheme: str) -> None:
    assert open_engine(f"{scheme}://user@host/name").url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:s3cret@host/name",
        "s3cret",
        "postgresql://user:p@ss:s3cret@host:x/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:s3cret.db?mode=ro&uri=true",
    ],
)
def test_what_is_no_archive_url_is_refused_with_an_example_of_one(url: str) -> None:
    with pytest.raises(ArchiveError, match=r"sqlite:////path/to/archive\.db") as caught:
        open_engine(url)
    assert "s3cret" not in _everything_said(caught.value)


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(ArchiveError, match=r"postgresql://127.0.0.1:1/name cannot be reached") as caught:
        open_archive("postgresql://user:s3cret@127.0.0.1:1/name?application_name=x")
    assert "s3cret" not in _everything_said(caught.value)


def test_a_database_that_is_not_there_is_named(postgres: PostgresServer) -> None:
    with pytest.raises(ArchiveError, match='"nowhere" does not exist'):
        open_archive(postgres.url("nowhere"))


def test_the_folder_of_a_new_file_is_made(tmp_path: Path) -> None:
    open_archive(f"sqlite:///{tmp_path}/a/b/archive.db").close()
    assert (tmp_path / "a/b/archive.db").exists()


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="file cannot be created"):
        open_archive(f"sqlite:///{tmp_path}/file/archive.db")
    with pytest.raises(ArchiveError, match="cannot be opened"):
        open_archive(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_archive_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("my notes " * 100)
    with pytest.raises(ArchiveError, match="not a sound archive"):
        open_archive(f"sqlite:///{file}")
    assert file.read_text() == "my notes " * 100


def test_a_read_only_archive_says_so(sqlite_with_schema: str) -> None:
    with open_archive(sqlite_with_schema) as archive:
        _on_every_connection(archive.engine, "PRAGMA query_only = ON")
        with pytest.raises(ArchiveError, match="read-only"):
            archive.studies.create("s", "s", {}, seed=0)


def test_a_full_disk_keeps_nothing_half_written(sqlite_with_schema: str) -> None:
    with open_archive(sqlite_with_schema) as archive:
        archive.studies.create("s", "s", {}, seed=0)
        _on_every_connection(archive.engine, "PRAGMA max_page_count = 1")
        with pytest.raises(ArchiveError, match="is full; free space"):
            archive.trials.record("s", 0, "search", 0, a_result((0.5,) * 500), "flops")
        assert archive.trials.list("s") == []
    with open_archive(sqlite_with_schema) as archive:
        assert archive.trials.record("s", 0, "search", 0, a_result((0.5,) * 500), "flops").scored == 500


def test_a_full_disk_of_the_server_is_recognised(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    with pytest.raises(ArchiveError, match="is full; free space"), explained(engine), engine.connect() as connection:
        connection.exec_driver_sql(full)
    engine.dispose()


def test_an_archive_that_was_never_set_up_says_so(empty_url: str) -> None:
    engine = open_engine(empty_url)
    with pytest.raises(ArchiveError, match="has not been set up"):
        Archive(engine).studies.list()
    engine.dispose()


def test_a_server_that_dropped_its_connections_is_used_again(
    postgres: PostgresServer, postgresql_with_schema: str
) -> None:
    with open_archive(postgresql_with_schema) as archive:
        archive.studies.create("s", "s", {}, seed=0)
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test%'")
        assert archive.studies.get("s").id == "s"


def test_writers_wait_for_each_other_and_lose_nothing(archive: Archive) -> None:
    def write(writer: int) -> None:
        for number in range(10):
            archive.studies.create(f"{writer}-{number}", "s", {}, seed=0)
            archive.studies.set_status(f"{writer}-{number}", "running")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert len(archive.studies.list(limit=100, status="running")) == 40


def test_readers_do_not_wait_for_a_writer(archive: Archive) -> None:
    archive.studies.create("s", "s", {}, seed=0)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with archive.studies._sessions.write() as session:
            session.connection().exec_driver_sql("UPDATE studies SET phase = 'unseen'")
            entered.set()
            leave.wait(20)

    writer = threading.Thread(target=hold)
    writer.start()
    entered.wait(20)
    try:
        assert archive.studies.get("s").phase == ""
    finally:
        leave.set()
        writer.join()
    assert archive.studies.get("s").phase == "unseen"


def _on_every_connection(engine: Engine, pragma: str) -> None:
    engine.dispose()
    event.listen(engine, "connect", lambda connection, record: connection.execute(pragma))


def _everything_said(error: BaseException) -> str:
    """The message and those of all errors behind it that a traceback would show."""
    said, link = "", error
    while True:
        said += f"{link} {link!r}"
        following = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        if following is None:
            return said
        link = following
