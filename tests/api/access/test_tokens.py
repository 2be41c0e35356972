"""Tokens: who needs one, what each scope may, how they end; and that no route forgets to ask."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import openai
import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from api.access import callers
from api.access.policy import AccessPolicy, NoToken
from api.access.scopes import needing, rule_for
from api.app import create_app
from api.serve import serve
from api.settings import Settings
from planner.archive import AccessScope, ArchiveError, open_archive
from tests.api.access.conftest import HOST
from tests.api.service import Service, served_app, tiny_spec

Holder = Callable[[AccessScope], httpx.Client]
OPEN = {"/healthz", "/login", "/static/{path:path}", "/static/plotly.min.js"}
"""The routes that answer nobody in particular; a new one must be argued for here."""


def routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every method and path an application has."""
    found = []
    for route in app.routes:
        if isinstance(route, Mount):
            found.append(("GET", f"{route.path}/{{path:path}}"))
        else:
            assert isinstance(route, Route), f"{route} is of a kind this test does not know"
            found += [(method, route.path) for method in sorted(route.methods or ())]
    return found


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "1", path)


def test_every_route_refuses_a_request_without_a_token(guarded: Service) -> None:
    asked = routes(create_app(guarded.runtime))
    assert len(asked) > 30
    for method, path in asked:
        answer = guarded.http.request(method, filled(path))
        if path in OPEN:
            assert answer.status_code != 401, f"{method} {path}"
        else:
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.headers["www-authenticate"].startswith("Bearer"), f"{method} {path}"


def test_a_path_that_leads_nowhere_refuses_too(guarded: Service) -> None:
    for path in ("/v1/models", "/nothing", "/api/v1/nothing", "//healthz", "/healthz/", "/login/../api/v1/studies"):
        assert guarded.http.get(path).status_code == 401, path


def test_every_route_refuses_a_token_that_may_too_little(guarded: Service, holder: Holder) -> None:
    reader, submitter = holder("read"), holder("submit")
    for method, path in routes(create_app(guarded.runtime)):
        need = rule_for(method, filled(path)).need
        for client, too_much in ((reader, {"submit", "admin"}), (submitter, {"admin"})):
            if need in too_much:
                answer = client.request(method, filled(path))
                assert answer.status_code == 403, f"{method} {path}"
                assert "use a token of scope" in answer.text


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/api/v1/studies", "read"),
        ("POST", "/api/v1/studies", "submit"),
        ("POST", "/api/v1/spec/check", "read"),
        ("DELETE", "/api/v1/schedules/nightly", "admin"),
        ("POST", "/schedules/nightly/delete", "admin"),
        ("GET", "/api/v1/audit", "admin"),
        ("POST", "/v1/chat/completions", "submit"),
        ("GET", "/v1/models", "read"),
        ("PATCH", "/something/new", "submit"),
        ("DELETE", "/healthz", "admin"),
    ],
)
def test_what_a_request_needs(method: str, path: str, need: str) -> None:
    assert rule_for(method, path).need == need


def test_scopes_include_one_another_in_order(guarded: Service, holder: Holder) -> None:
    spec = tiny_spec(name="scoped")
    submitted = {scope: holder(scope).post("/api/v1/studies", json=spec) for scope in ("read", "submit", "admin")}
    assert {scope: answer.status_code for scope, answer in submitted.items()} == {
        "read": 403, "submit": 201, "admin": 201,
    }  # fmt: skip
    assert holder("read").get("/api/v1/studies").status_code == 200
    for scope in ("submit", "admin"):
        holder("submit").post(f"/api/v1/studies/{submitted[scope].json()['id']}/cancel")


def test_a_route_may_ask_for_more_than_its_method_says(service: Service, token: Callable[[AccessScope], str]) -> None:
    app = create_app(service.runtime, access=AccessPolicy(tokens_needed=True))

    def secret() -> str:
        return "shown"

    app.router.routes.insert(0, APIRoute("/raised", secret, methods=["GET"], dependencies=[Depends(needing("admin"))]))
    statuses = {}
    with served_app(service.runtime, app) as running:
        for scope in ("submit", "admin"):
            answer = running.http.get("/raised", headers={"authorization": f"Bearer {token(scope)}"})
            statuses[scope] = answer.status_code
    assert statuses == {"submit": 403, "admin": 200}


@pytest.mark.parametrize(
    "shown",
    ["Bearer", "Bearer apt_", "Bearer nonsense", "Basic YTpi", "Bearer apt_0123456789ab_" + "x" * 43],
)
def test_anything_but_a_good_token_is_refused(guarded: Service, shown: str) -> None:
    answer = guarded.http.get("/api/v1/studies", headers={"authorization": shown})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_token_with_one_other_letter_is_refused(guarded: Service, token: Callable[[AccessScope], str]) -> None:
    text = token("read")
    changed = text[:-2] + ("a" if text[-2] != "a" else "b") + text[-1]
    assert guarded.http.get("/readyz", headers={"authorization": f"Bearer {text}"}).status_code == 200
    assert guarded.http.get("/readyz", headers={"authorization": f"Bearer {changed}"}).status_code == 401


def test_a_revoked_and_an_expired_token_are_refused(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "FRESH_S", 0.0)
    tokens = guarded.runtime.archive.tokens
    ended = tokens.create("ended", "admin", timedelta(microseconds=1))
    revoked = tokens.create("revoked", "admin", timedelta(days=1))
    headers = {"authorization": f"Bearer {revoked.text}"}
    assert guarded.http.get("/readyz", headers=headers).status_code == 200
    tokens.revoke("revoked")
    assert guarded.http.get("/readyz", headers=headers).status_code == 401
    assert guarded.http.get("/readyz", headers={"authorization": f"Bearer {ended.text}"}).status_code == 401


def test_a_token_known_already_ends_when_it_expires(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "FRESH_S", 3600.0)
    brief = guarded.runtime.archive.tokens.create("brief", "read", timedelta(seconds=1))
    headers = {"authorization": f"Bearer {brief.text}"}
    statuses = set()
    for _ in range(30):
        statuses.add(guarded.http.get("/readyz", headers=headers).status_code)
        if 401 in statuses:
            break
        time.sleep(0.1)
    assert statuses == {200, 401}


def test_the_last_use_is_kept(guarded: Service, token: Callable[[AccessScope], str]) -> None:
    text = token("read")
    guarded.http.get("/readyz", headers={"authorization": f"Bearer {text}"})
    assert next(t for t in guarded.runtime.archive.tokens.list() if t.id in text).last_used_at is not None


def test_no_token_is_kept_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "archive.db"
    with open_archive(f"sqlite:///{file}") as archive:
        made = archive.tokens.create("kept", "admin")
        session = archive.tokens.open_session(made.record, timedelta(hours=1))
    dump = "\n".join(sqlite3.connect(file).iterdump())
    assert made.record.id in dump
    for text in (made.text, made.text.rpartition("_")[2], session, session.partition(".")[2]):
        assert text not in dump
    assert made.text not in repr(made)


def test_names_and_lifetimes_are_checked(tmp_path: Path) -> None:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        archive.tokens.create("ci", "read")
        with pytest.raises(ArchiveError, match="already"):
            archive.tokens.create("ci", "admin")
        for name in ("", "a b", "0123456789ab", "x" * 65, "é"):
            with pytest.raises(ArchiveError, match="name has"):
                archive.tokens.create(name, "read")
        for lifetime in (timedelta(0), timedelta(days=-1)):
            with pytest.raises(ArchiveError, match="positive"):
                archive.tokens.create("short", "read", lifetime)
        with pytest.raises(ArchiveError, match="too long"):
            archive.tokens.create("long", "read", timedelta(days=99_999_999))
        assert archive.tokens.living() == 1
        archive.tokens.revoke("ci")
        assert archive.tokens.living() == 0


@pytest.mark.parametrize("changed", [{"host": "0.0.0.0"}, {"allowed_hosts": (HOST,)}, {"require_tokens": True}])
def test_a_service_that_others_can_reach_does_not_start_without_a_token(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    settings = Settings(home=tmp_path, port=0).model_copy(update=changed)
    with pytest.raises(NoToken, match="apportion token create"):
        serve(settings)
    with open_archive(settings.archive_url) as archive:
        archive.tokens.create("gone", "admin")
        archive.tokens.revoke("gone")
    with pytest.raises(NoToken):
        serve(settings)


@pytest.mark.parametrize(
    ("changed", "needed"),
    [
        ({}, False),
        ({"host": "::1"}, False),
        ({"host": "localhost"}, False),
        ({"allowed_hosts": ("localhost",)}, False),
        ({"host": "::"}, True),
        ({"host": "192.168.1.10"}, True),
        ({"host": "127.0.0.1.example.org"}, True),
        ({"allowed_hosts": (HOST,)}, True),
        ({"require_tokens": True}, True),
    ],
)
def test_tokens_are_needed_as_soon_as_others_can_ask(changed: dict[str, object], needed: bool) -> None:
    assert AccessPolicy.of(Settings().model_copy(update=changed)).tokens_needed is needed


def test_on_loopback_a_client_may_send_any_key_but_not_a_dead_token(service: Service) -> None:
    dead = service.runtime.archive.tokens.create("dead", "read")
    weak = service.runtime.archive.tokens.create("weak", "read")
    service.runtime.archive.tokens.revoke("dead")

    def status(key: str, method: str = "GET") -> int:
        path = "/api/v1/studies"
        return service.http.request(method, path, headers={"authorization": f"Bearer {key}"}).status_code

    assert status("unused") == 200
    assert status(dead.text) == 401
    assert (status(weak.text), status(weak.text, "POST")) == (200, 403)


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host"])
def test_a_proxy_does_not_open_a_service_without_tokens(service: Service, guarded: Service, header: str) -> None:
    assert service.http.get("/api/v1/studies", headers={header: "203.0.113.9"}).status_code == 403
    assert guarded.http.get("/healthz", headers={header: "203.0.113.9"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (HOST, 200),
        (f"{HOST}:8321", 200),
        (HOST.upper(), 200),
        ("203.0.113.9", 200),
        ("[2001:db8::1]:80", 200),
        ("localhost", 200),
        ("rebound.example", 421),
        (f"{HOST}.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
    ],
)
def test_only_the_hosts_named_are_answered(guarded: Service, host: str, status: int) -> None:
    assert guarded.http.get("/healthz", headers={"host": host}).status_code == status


def test_the_plan_endpoint_refuses_in_the_shape_its_clients_read(guarded: Service, token: Callable[..., str]) -> None:
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="nobody's", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            client.models.list()
        assert unknown.value.type == "invalid_request_error"
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=token("read"), max_retries=0) as client:
        assert client.models.list().object == "list"
        with pytest.raises(openai.PermissionDeniedError, match="use a token of scope submit"):
            client.chat.completions.create(model="plan:x", messages=[{"role": "user", "content": "w1"}])
