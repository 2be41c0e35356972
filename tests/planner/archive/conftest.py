"""Every test of the archive runs on both databases."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.archive import Archive, open_archive, open_engine
from planner.archive.tables import ArchiveTable
from tests.postgres import PostgresServer, postgres, postgres_url

__all__ = ["postgres", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of this test's own, without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/archive.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty archive with the newest schema."""
    return str(request.getfixturevalue(f"{request.param}_with_schema"))


@pytest.fixture
def archive(url: str) -> Iterator[Archive]:
    with open_archive(url) as opened:
        yield opened


@pytest.fixture
def study(archive: Archive) -> str:
    """Id of a study that the archive holds."""
    return archive.studies.create("study-1", "a study", {}, seed=0).id


@pytest.fixture
def sqlite_with_schema(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "archive.db")
    return f"sqlite:///{tmp_path}/archive.db"


@pytest.fixture
def postgresql_with_schema(postgresql_shared: str) -> str:
    """One database for all tests, emptied before each: a tenth of the time a new one takes."""
    engine = open_engine(postgresql_shared)
    with engine.begin() as connection:
        for table in reversed(ArchiveTable.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()
    return postgresql_shared


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "archive.db"
    open_archive(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def postgresql_shared(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database() as url:
        open_archive(url).close()
        yield url
