"""The service applies its retention by itself."""

from __future__ import annotations

from pathlib import Path

from api.housekeeping import kept_house
from api.settings import Settings
from planner.archive import open_archive
from tests.api.service import until


def test_an_old_study_goes_while_the_house_is_kept(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, keep_studies_days=1e-9)
    with open_archive(settings.archive_url) as archive:
        archive.studies.create("s", "s", {}, 0)
        archive.studies.set_status("s", "cancelled")
        with kept_house(settings, archive):
            until(lambda: not archive.studies.list())
        assert archive.studies.list() == []


def test_nothing_goes_where_the_settings_keep_all(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with open_archive(settings.archive_url) as archive:
        archive.studies.create("s", "s", {}, 0)
        archive.studies.set_status("s", "cancelled")
        with kept_house(settings, archive):
            pass
        assert [s.id for s in archive.studies.list()] == ["s"]
