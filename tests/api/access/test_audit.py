"""The audit log: every change with who, when, from where and what came of it; and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from api.access.policy import AccessPolicy
from api.app import create_app
from api.command import app
from planner.archive import AccessScope, ArchiveError, open_archive
from tests.api.service import Service, served

Holder = Callable[[AccessScope], httpx.Client]


def newest(service: Service) -> int:
    entries = service.runtime.archive.audit.list(1)
    return entries[0].id if entries else 0


def since(service: Service, number: int) -> list[tuple[str, str, str, str, str]]:
    entries = service.runtime.archive.audit.list(100)
    return [(e.kind, e.who, e.action, e.subject, e.result) for e in reversed(entries) if e.id > number]


def test_changes_are_noted_with_their_result_and_reads_are_not(guarded: Service, holder: Holder) -> None:
    before = newest(guarded)
    reader, submitter = holder("read"), holder("submit")
    reader.get("/api/v1/studies")
    reader.post("/api/v1/studies/gone/cancel")
    submitter.post("/api/v1/studies/gone/cancel")
    submitter.post("/api/v1/spec/check", json={})
    guarded.http.post("/api/v1/studies/gone/cancel")
    noted = since(guarded, before)
    assert [(kind, *rest) for kind, _, *rest in noted] == [
        ("token", "POST", "/api/v1/studies/gone/cancel", "403"),
        ("token", "POST", "/api/v1/studies/gone/cancel", "404"),
    ]
    assert [who.partition("-")[0] for _, who, *_ in noted] == ["read", "submit"]
    entry = guarded.runtime.archive.audit.list(1)[0]
    assert entry.source == "127.0.0.1"
    assert datetime.now(UTC) - entry.at < timedelta(minutes=1)


def test_every_change_of_the_application_is_noted(guarded: Service, holder: Holder) -> None:
    admin = holder("admin")
    for route in create_app(guarded.runtime).routes:
        for method in sorted(getattr(route, "methods", None) or ()):
            path = getattr(route, "path", "")
            if method in ("GET", "HEAD", "OPTIONS") or path in ("/api/v1/spec/check", "/api/v1/estimate", "/logout"):
                continue
            if path.startswith("/v1/"):
                continue
            before = newest(guarded)
            admin.request(method, path.replace("{", "").replace("}", ""))
            assert len(since(guarded, before)) == 1, f"{method} {path}"


def test_this_machines_user_and_logins_are_noted(service: Service, guarded: Service) -> None:
    before = newest(service)
    service.http.post("/api/v1/studies/gone/cancel")
    guarded.http.post("/login", data={"token": "guess"})
    assert [(kind, who, action, result) for kind, who, action, _, result in since(service, before)] == [
        ("loopback", "loopback", "POST", "404"),
        ("nobody", "nobody", "POST", "403"),
    ]


def test_a_failure_of_ours_is_noted_and_guarded_like_any_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("inside")

    before = newest(service)
    monkeypatch.setattr(service.runtime, "cancel", broken)
    study = service.runtime.archive.studies.create("for-audit", "for-audit", {}, seed=0)
    service.runtime.archive.studies.set_status(study.id, "cancelled")
    answer = service.http.post(f"/api/v1/studies/{study.id}/cancel")
    assert answer.status_code == 500
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "inside" not in answer.text
    assert since(service, before)[-1][-1] == "500"


def test_a_log_that_cannot_be_written_does_not_withhold_the_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ArchiveError("the disk is full")

    monkeypatch.setattr(service.runtime.archive.audit, "note", broken)
    assert service.http.post("/api/v1/studies/gone/cancel").status_code == 404
    assert "POST /api/v1/studies/gone/cancel, 404" in caplog.text


def test_admins_page_through_the_log(guarded: Service, holder: Holder) -> None:
    submitter, admin = holder("submit"), holder("admin")
    for _ in range(5):
        submitter.post("/api/v1/studies/gone/cancel")
    who = guarded.runtime.archive.audit.list(1)[0].who
    assert submitter.get("/api/v1/audit").status_code == 403
    seen: list[int] = []
    before = None
    while True:
        query = {"limit": 2, "who": who, **({} if before is None else {"before": before})}
        page = admin.get("/api/v1/audit", params=query).json()
        seen += [entry["id"] for entry in page["entries"]]
        before = page["next_before"]
        if before is None:
            break
    assert len(seen) == 5
    assert seen == sorted(seen, reverse=True)


def test_old_entries_go_and_new_ones_stay(tmp_path: Path, service: Service) -> None:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        for number in range(3):
            archive.audit.note("token", "ci", "::1", "POST", f"/{number}", "200")
        assert archive.audit.forget(datetime.now(UTC) - timedelta(days=1)) == 0
        assert archive.audit.forget(datetime.now(UTC)) == 3
        assert archive.audit.list() == []
    before = service.runtime.archive.audit.list(1)[0].id
    with served(service.runtime, AccessPolicy(audit_kept=timedelta(0))) as brief:
        brief.http.post("/api/v1/studies/gone/cancel")
        assert all(entry.id > before for entry in brief.runtime.archive.audit.list()), "retention is applied by itself"


def test_an_entry_cannot_pretend_to_be_several(tmp_path: Path) -> None:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        archive.audit.note("token", "ci", "::1", "POST", "/x\n9 admin deleted it\x1b[2J\x00" + "y" * 9999, "200")
        (entry,) = archive.audit.list()
        assert entry.subject.isprintable()
        assert len(entry.subject) == 300


def test_commands_are_noted_and_listed(tmp_path: Path) -> None:
    run = CliRunner().invoke
    home = ["--home", str(tmp_path)]
    assert run(app, ["token", "create", "ci", *home]).exit_code == 0
    assert run(app, ["token", "create", "ci", *home]).exit_code == 2
    assert run(app, ["token", "revoke", "ci", *home]).exit_code == 0
    entries = json.loads(run(app, ["audit", "--json", *home]).stdout)
    assert [(e["kind"], e["action"], e["result"]) for e in entries] == [
        ("command", "token revoke", "done"),
        ("command", "token create", "failed"),
        ("command", "token create", "done"),
    ]
    assert "token revoke ci" in run(app, ["audit", *home], env={"COLUMNS": "200"}).stdout
