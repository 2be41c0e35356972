"""What anybody echoed into a text that is stored: the archive keeps it without the secrets of the environment."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from planner.archive import Archive
from planner.archive.tables import ArchiveTable

SECRET = 'sk-live-"4f9a\\Zq7/x&y'
PASSWORD = "pa55word-of-db"


def dump(archive: Archive) -> str:
    """All text that an archive holds."""
    lines: list[str] = []
    with archive.engine.connect() as connection:
        for table in ArchiveTable.metadata.sorted_tables:
            lines += [str(tuple(row)) for row in connection.execute(text(f'SELECT * FROM "{table.name}"'))]
    return "\n".join(lines)


def test_no_secret_is_stored(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_API_KEY", SECRET)
    monkeypatch.setenv("SOME_DATABASE_URL", f"postgresql://planner:{PASSWORD}@db/x")
    study = archive.studies.create("s", "s", {"note": SECRET}, seed=0)
    archive.studies.set_status(study.id, "running")
    archive.studies.set_status(study.id, "failed", f"the server said {SECRET}")
    archive.events.append(study.id, "status", {"error": {"deep": [f"with {PASSWORD}"]}})
    archive.audit.note("token", "ci", "::1", "POST", f"/{SECRET}", "200")
    kept = dump(archive)
    assert "the server said [secret]" in kept
    assert archive.studies.get("s").spec == {"note": "[secret]"}
    assert archive.events.after(study.id, 0)[-1].payload == {"error": {"deep": ["with [secret]"]}}
    assert "4f9a" not in kept
    assert PASSWORD not in kept
