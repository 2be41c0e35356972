"""Logging in and out in a real browser, with forms that change things in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from api.access.policy import AccessPolicy
from tests.api.service import Service, long_spec, served, submit

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def guarded(service: Service) -> Iterator[Service]:
    with served(service.runtime, AccessPolicy(tokens_needed=True)) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, guarded: Service) -> Iterator[Page]:
    context = chromium.new_context(base_url=guarded.url)
    yield context.new_page()
    context.close()


def test_a_token_opens_the_pages_until_logging_out(page: Page, guarded: Service, service: Service, shots: Path) -> None:
    study = submit(service, long_spec())
    text = service.runtime.archive.tokens.create("browser", "submit").text
    page.goto(f"/studies/{study}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.screenshot(path=shots / "login.png", full_page=True)
    page.get_by_label("Access token").fill("apt_guess")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("No such token")
    page.screenshot(path=shots / "login-fault.png", full_page=True)
    page.get_by_label("Access token").fill(text)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{guarded.url}/studies/{study}")
    assert page.evaluate("document.cookie") == "", "no script reads the session"
    expect(page.locator("#activity-text")).to_contain_text("draws per second", timeout=40_000)
    page.get_by_role("button", name="Cancel").first.click()
    expect(page.locator("#live-head .badge")).to_contain_text("cancelled", timeout=40_000)
    page.screenshot(path=shots / "logged-in.png", full_page=True)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    page.goto(f"/studies/{study}")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
