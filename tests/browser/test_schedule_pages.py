"""The schedules' pages in a real browser, by what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from planner.archive import AlertTarget
from planner.durable.schedules import run_now
from tests.api.service import Service, tiny_spec, until
from tests.browser.conftest import Open

pytestmark = pytest.mark.browser

WIDE: dict[str, object] = {"viewport": {"width": 1280, "height": 900}}
NARROW: dict[str, object] = {"viewport": {"width": 390, "height": 844}}
DARK: dict[str, object] = {**WIDE, "color_scheme": "dark"}


@pytest.fixture(scope="module")
def checked(service: Service) -> Iterator[str]:
    """A schedule with a search, two re-validations and an alert that nobody took."""
    spec = tiny_spec(name="checked")
    spec["budget"]["search"]["trials"] = 4
    body = {"name": "checked", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "spec": spec}
    answer = service.http.post("/api/v1/schedules", json=body)
    assert answer.status_code == 201, answer.text
    archive = service.runtime.archive
    for _ in range(3):
        run = run_now(archive, "checked")
        ended = until(lambda run=run: (held := archive.schedule_runs.get(run.id)).status == "ended" and held)  # type: ignore[misc]
    archive.alerts.enter(ended, AlertTarget("https://ops.example/hook", "KEY"), "{}")
    for number in (1, 2):
        attempt = {"number": number, "at": "2026-05-04T12:00:00+00:00", "status": 503, "error": "", "seconds": 0.2}
        attempt["error"] = "the receiver answered 503"
        archive.alerts.attempted(ended.id, attempt, "failed")
    yield "checked"
    service.http.delete("/api/v1/schedules/checked")


def no_sideways_scrolling(page: Page) -> bool:
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_a_schedule_is_entered_run_paused_edited_and_deleted_by_its_form(visit: Open, service: Service) -> None:
    page = visit("/schedules")
    page.get_by_label("Name", exact=True).fill("by hand")
    page.get_by_label("Cron expression").fill("every day")
    page.get_by_role("button", name="Schedule it").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was scheduled")
    expect(page.get_by_role("alert").get_by_role("link")).to_have_count(1)
    page.get_by_label("Name", exact=True).fill("by-hand")
    page.get_by_role("button", name="Schedule it").click()
    expect(page.get_by_role("alert")).to_contain_text("no cron expression")
    page.get_by_label("When something changes").check()
    expect(page.get_by_label("Cron expression")).to_be_hidden()
    expect(page.get_by_label("Time zone")).to_be_hidden()
    page.get_by_label("The data").uncheck()
    page.get_by_role("button", name="Schedule it").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("by-hand")
    expect(page.get_by_text("on a change").first).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("Change when it runs").click()
    page.get_by_label("Once").check()
    page.get_by_label("Moment").fill("2099-03-29T02:30")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("dl.figures")).to_contain_text("2099-03-29 01:00")
    held: Any = service.http.get("/api/v1/schedules/by-hand").json()
    assert (held["at"], held["on_change"]) == ("2099-03-29T01:00:00Z", [])
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Schedules")
    assert service.http.get("/api/v1/schedules/by-hand").status_code == 404


def test_who_edits_what_somebody_else_has_changed_is_told(visit: Open, service: Service, checked: str) -> None:
    page = visit(f"/schedules/{checked}")
    page.get_by_text("Change when it runs").click()
    changed = service.http.patch(f"/api/v1/schedules/{checked}", json={"keep_runs": 50}, headers={"If-Match": "*"})
    assert changed.status_code == 200
    page.get_by_label("Cron expression").fill("0 5 * * *")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("was changed since it was read")
    assert service.http.get(f"/api/v1/schedules/{checked}").json()["cron"] == "30 2 * * *"


@pytest.mark.parametrize(("look", "options"), [("wide", WIDE), ("dark", DARK), ("narrow", NARROW)])
def test_the_pages_say_what_runs_found_and_fit(
    visit: Open, checked: str, shots: Path, look: str, options: dict[str, object]
) -> None:
    page = visit("/schedules", **options)
    row = page.get_by_role("row").filter(has_text=checked)
    expect(row).to_contain_text("still good")
    assert str(row.get_by_role("img").get_attribute("aria-label")).startswith("Scores of the last 3 checks")
    page.screenshot(path=shots / f"schedules-list-{look}.png", full_page=True)
    assert no_sideways_scrolling(page)
    page.get_by_role("link", name=checked).click()
    history = page.get_by_role("region", name=f"Runs of {checked}")
    expect(history.locator("tbody tr").nth(0)).to_contain_text("still good")
    expect(history.locator("tbody tr").nth(0)).to_contain_text("none drawn before")
    expect(history.locator("tbody tr").nth(2)).to_contain_text("no plan has been found yet")
    expect(page.get_by_role("region", name=f"Alerts of {checked}")).to_contain_text("the receiver answered 503")
    page.get_by_text("Change when it runs").click()
    page.screenshot(path=shots / f"schedule-{look}.png", full_page=True)
    assert no_sideways_scrolling(page)
    history.get_by_role("link", name="Re-validation").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("re-validation 2")


def test_the_page_is_usable_by_keyboard(visit: Open, checked: str) -> None:
    page = visit(f"/schedules/{checked}")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => (document.activeElement.textContent || '').trim().slice(0, 30)"))
    assert {"Run now", "Pause", "Change when it runs, what is c"} <= reached
    unlabelled = page.evaluate(
        "() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea')]"
        ".filter((field) => !field.labels || !field.labels.length).map((field) => field.name)"
    )
    assert unlabelled == []
