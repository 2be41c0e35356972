"""A browser shows its token once: session cookies, their forms, and how they end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from api.access import callers
from api.access.callers import SESSION_COOKIE
from api.access.login import local
from planner.archive import AccessScope
from tests.api.service import Service

PAGE = {"accept": "text/html"}


@pytest.fixture
def visitor(guarded: Service) -> Iterator[httpx.Client]:
    """A browser that has not been here."""
    with httpx.Client(base_url=guarded.url, headers={**PAGE, "origin": guarded.url}, timeout=20) as client:
        yield client


def form_token(page: httpx.Response) -> str:
    found = re.search(r'name="form_token" value="([^"]+)"', page.text)
    assert found, page.text
    return found.group(1)


def log_in(visitor: httpx.Client, token: str, next: str = "") -> httpx.Response:
    page = visitor.get("/login", params={"next": next})
    return visitor.post("/login", data={"form_token": form_token(page), "token": token, "next": next})


def test_a_visitor_is_led_to_the_login_and_on_to_where_they_wanted(
    visitor: httpx.Client, token: Callable[[AccessScope], str]
) -> None:
    turned = visitor.get("/studies/new?like=", headers=PAGE)
    assert turned.status_code == 303
    assert turned.headers["location"] == "/login?next=/studies/new%3Flike%3D"
    login = visitor.get(turned.headers["location"])
    assert "Log in" in login.text
    assert 'href="/schedules"' not in login.text
    answer = log_in(visitor, token("submit"), "/studies/new?like=")
    assert (answer.status_code, answer.headers["location"]) == (303, "/studies/new?like=")
    page = visitor.get("/studies/new")
    assert page.status_code == 200
    assert "Log out" in page.text


def test_the_session_cookie_is_out_of_reach_of_scripts_and_other_sites(
    visitor: httpx.Client, token: Callable[[AccessScope], str]
) -> None:
    shown = token("read")
    cookie = log_in(visitor, shown).headers["set-cookie"]
    assert cookie.startswith(f"{SESSION_COOKIE}=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert shown not in cookie
    visitor.cookies.clear()
    visitor.headers["x-forwarded-proto"] = "https"
    visitor.headers["origin"] = visitor.headers["origin"].replace("http:", "https:")
    page = visitor.get("/login")
    assert "Secure" in page.headers["set-cookie"]
    assert "max-age" in page.headers["strict-transport-security"]
    held = page.headers["set-cookie"].partition(";")[0]
    data = {"form_token": form_token(page), "token": shown}
    assert "Secure" in visitor.post("/login", data=data, headers={"cookie": held}).headers["set-cookie"]


@pytest.mark.parametrize("wrong", ["", "guess", "apt_0123456789ab_" + "x" * 43])
def test_a_wrong_token_opens_nothing(visitor: httpx.Client, wrong: str) -> None:
    answer = log_in(visitor, wrong)
    assert answer.status_code == 422
    assert SESSION_COOKIE not in visitor.cookies


def test_a_login_from_another_page_is_refused(visitor: httpx.Client, token: Callable[[AccessScope], str]) -> None:
    answer = visitor.post("/login", data={"token": token("read"), "form_token": "guess"})
    assert answer.status_code == 403


def test_logging_out_ends_the_session_for_whoever_copied_its_cookie(
    visitor: httpx.Client, guarded: Service, token: Callable[[AccessScope], str]
) -> None:
    log_in(visitor, token("read"))
    copied = {SESSION_COOKIE: visitor.cookies[SESSION_COOKIE]}
    answer = visitor.post("/logout", data={"form_token": form_token(visitor.get("/"))})
    assert answer.status_code == 303
    assert SESSION_COOKIE not in visitor.cookies
    with httpx.Client(base_url=guarded.url, cookies=copied) as thief:
        assert thief.get("/api/v1/studies").status_code == 401


def test_a_session_ends_with_its_token(
    visitor: httpx.Client, guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "FRESH_S", 0.0)
    made = guarded.runtime.archive.tokens.create("leaving", "admin")
    log_in(visitor, made.text)
    assert visitor.get("/").status_code == 200
    guarded.runtime.archive.tokens.revoke("leaving")
    assert visitor.get("/").status_code == 303


def test_a_session_may_what_its_token_may(visitor: httpx.Client, token: Callable[[AccessScope], str]) -> None:
    log_in(visitor, token("read"))
    answer = visitor.post("/studies/new", data={"form_token": form_token(visitor.get("/studies/new"))})
    assert answer.status_code == 403


def test_a_form_needs_its_own_sessions_token(
    visitor: httpx.Client, guarded: Service, token: Callable[[AccessScope], str]
) -> None:
    log_in(visitor, token("submit"))
    mine = form_token(visitor.get("/studies/new"))
    assert mine != visitor.cookies[SESSION_COOKIE]
    with httpx.Client(base_url=guarded.url, headers=dict(visitor.headers)) as other:
        log_in(other, token("submit"))
        forged = other.post("/studies/new", data={"form_token": mine, "name": "forged"})
    assert forged.status_code == 403
    # A cookie that another host of this domain planted is no substitute.
    planted = visitor.post(
        "/studies/new", data={"form_token": "planted"}, headers={"cookie": f"{SESSION_COOKIE}="
        f"{visitor.cookies[SESSION_COOKIE]}; apportion_form=planted"},
    )  # fmt: skip
    assert planted.status_code == 403
    assert visitor.post("/studies/new", data={"form_token": mine}).status_code == 422


def test_a_change_by_cookie_must_state_its_origin(visitor: httpx.Client, token: Callable[[AccessScope], str]) -> None:
    log_in(visitor, token("submit"))
    data = {"form_token": form_token(visitor.get("/studies/new"))}
    for origin, status in ((None, 403), ("https://evil.example", 403), ("null", 403), (visitor.headers["origin"], 422)):
        visitor.headers.pop("origin", None)
        headers = {} if origin is None else {"origin": origin}
        assert visitor.post("/studies/new", data=data, headers=headers).status_code == status, origin
        visitor.headers["origin"] = str(visitor.base_url).rstrip("/")


@pytest.mark.parametrize(
    ("address", "leads"),
    [
        ("/studies?x=1", "/studies?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/\t/evil.example", "/"),
        ("", "/"),
    ],
)
def test_the_login_leads_nowhere_else(address: str, leads: str) -> None:
    assert local(address) == leads
