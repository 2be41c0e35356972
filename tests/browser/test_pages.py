"""The pages in a real browser: form, live study, plan, faults, dark and narrow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page, expect

from env.spec import StudySpec
from tests.api.service import Service, long_spec, submit, tiny_spec
from tests.browser.conftest import Open
from tests.planner.archive.samples import a_result

pytestmark = pytest.mark.browser

SECONDS = 1000
DARK = {"color_scheme": "dark"}
NARROW = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}


def fill_tiny(page: Page, name: str) -> None:
    """Enter the tiny study into the form."""
    spec = tiny_spec(name=name)
    page.get_by_label("Name", exact=False).first.fill(name)
    page.locator("#field-pipeline").fill(yaml.safe_dump(spec["pipeline"], sort_keys=False))
    page.locator("#field-data-source").select_option("inline")
    page.locator("#field-data-inline-rows").fill(yaml.safe_dump(spec["data"]["rows"]))
    page.locator("#field-data-inline-search").fill("10")
    page.locator("#field-data-inline-test").fill("10")
    page.locator("#field-budget-plan-limit").fill("1.2e7")
    page.locator("#field-budget-search-trials").fill("8")
    page.locator("#field-proposer-kind").select_option("insight")


def drawn(page: Page) -> None:
    """Wait for the figures; by locators, as the pages' policy forbids evaluated strings."""
    expect(page.locator(".plot .main-svg").first).to_be_visible(timeout=20 * SECONDS)


def figures_fit(page: Page) -> bool:
    """Whether every figure is as wide as its place."""
    return bool(
        page.evaluate(
            "() => [...document.querySelectorAll('figure:not([hidden]) .plot')]"
            ".every((p) => Math.abs(p.querySelector('.main-svg').getBoundingClientRect().width - p.clientWidth) < 3)"
        )
    )


def no_sideways_scrolling(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1"))


def test_the_form_leads_to_a_live_study_and_its_plan(visit: Open, shots: Path) -> None:
    page = visit("/studies/new")
    page.screenshot(path=shots / "form.png", full_page=True)
    fill_tiny(page, "from-the-browser")
    page.get_by_role("button", name="Start the study").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("from-the-browser")
    # Nothing is loaded again by hand: the page follows the study.
    expect(page.locator("#live-head .badge")).to_have_text("done", timeout=40 * SECONDS)
    expect(page.get_by_role("heading", name="The plan", exact=True)).to_be_visible()
    expect(page.locator("#live-trials tbody tr").first).to_be_visible()
    expect(page.locator("#figure-pareto")).to_be_visible(timeout=20 * SECONDS)
    expect(page.locator("#figure-allocation")).to_be_visible(timeout=20 * SECONDS)
    expect(page.locator("#figure-prediction .main-svg").first).to_be_visible()
    expect(page.locator("#live-prediction")).to_contain_text("Over 8 trials, measured cost is")
    assert page.locator(".plot .main-svg").count() >= 5
    expect(page.get_by_role("button", name="Cancel the study")).to_have_count(0)
    assert figures_fit(page)
    page.screenshot(path=shots / "study-done.png", full_page=True)


def test_predictions_and_measurements_follow_the_trials(visit: Open, service: Service, shots: Path) -> None:
    archive = service.runtime.archive
    spec = StudySpec.model_validate(tiny_spec(name="followed"))
    study = archive.studies.create("followed", spec.name, spec.model_dump(mode="json"), 0).id
    archive.studies.set_status(study, "running")
    page = visit(f"/studies/{study}")
    words, points = page.locator("#live-prediction"), page.locator("#figure-prediction .legendtext")
    expect(page.locator("#figure-prediction")).to_be_hidden()
    # The page is not loaded again: events bring the trials that follow.
    for number, factor in ((1, 2.0), (2, 2.0), (3, 2.0)):
        cost = number * 1e6
        result = replace(a_result((0.5, 0.7)), predicted_cost=cost, measured_cost=factor * cost)
        archive.trials.record(study, number, "search", 0, result, "FLOPs")
        archive.events.append(study, "trial", {"trial_no": number})
        trials = f"{number} trial" if number == 1 else f"{number} trials"
        expect(words).to_contain_text(f"Over {trials}, measured cost is 2 times the predicted cost")
        expect(points.filter(has_text=trials)).to_be_visible()
    expect(words).to_contain_text("Rank correlation 1.000")
    assert figures_fit(page)
    archive.studies.set_status(study, "cancelled")
    archive.events.append(study, "status", {"status": "cancelled"})
    expect(page.locator("#live-head .badge")).to_have_text("cancelled")


def test_only_the_chosen_data_source_is_shown(visit: Open) -> None:
    page = visit("/studies/new")
    expect(page.locator("#field-data-ledger-difficulty")).to_be_visible()
    expect(page.locator("#field-data-inline-rows")).to_be_hidden()
    page.locator("#field-data-source").select_option("inline")
    expect(page.locator("#field-data-inline-rows")).to_be_visible()
    expect(page.locator("#field-data-ledger-difficulty")).to_be_hidden()


def test_faults_stand_beside_their_fields_with_the_entries_kept(visit: Open, service: Service, shots: Path) -> None:
    page = visit("/studies/new")
    fill_tiny(page, "kept")
    page.locator("#field-pipeline").fill(yaml.safe_dump(tiny_spec()["pipeline"]).replace("- small", "- gone", 1))
    page.locator("#field-budget-search-trials").fill("0")
    page.get_by_role("button", name="Start the study").click()
    expect(page.get_by_role("alert")).to_contain_text("1 fault; nothing was queued")
    trials = page.locator("#field-budget-search-trials")
    expect(trials).to_have_value("0")
    expect(trials).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#field-budget-search-trials-faults")).to_contain_text("greater than or equal to 1")
    trials.fill("8")
    page.locator("#field-budget-plan-limit").fill("5")
    page.get_by_role("button", name="Start the study").click()
    expect(page.locator("#field-pipeline-faults")).to_contain_text("no model 'gone'")
    expect(page.locator("#field-name")).to_have_value("kept")
    page.screenshot(path=shots / "form-faults.png", full_page=True)
    page.locator("#summary a").first.click()
    expect(page.locator("#field-pipeline")).to_be_focused()
    assert service.http.get("/api/v1/studies", params={"name": "kept"}).json()["items"] == []


def test_a_running_study_shows_progress_and_stops_on_request(visit: Open, service: Service, shots: Path) -> None:
    page = visit(f"/studies/{submit(service, long_spec())}")
    expect(page.locator("#activity-text")).to_contain_text("draws per second", timeout=40 * SECONDS)
    expect(page.locator("#figure-prediction")).to_be_hidden()
    page.screenshot(path=shots / "study-running.png", full_page=True)
    page.get_by_role("button", name="Cancel the study").click()
    expect(page.locator("#live-head .badge")).to_have_text("cancelled", timeout=40 * SECONDS)


@pytest.mark.parametrize(
    ("look", "options"), [("light", {}), ("dark", DARK), ("narrow", NARROW), ("narrow-dark", {**NARROW, **DARK})]
)
def test_every_page_fits_in_every_look(
    visit: Open, service: Service, finished: str, shots: Path, look: str, options: dict[str, object]
) -> None:
    pages = {
        "studies": "/",
        "study": f"/studies/{finished}",
        "trial": f"/studies/{finished}/trials/7",
        "example": f"/studies/{finished}/trials/7/examples/",
        "form": "/studies/new",
        "fleet": "/fleet",
        "schedules": "/schedules",
        "api": "/api",
    }
    evidence = service.runtime.archive.trials.evidence(finished, 7)
    pages["example"] += evidence[0].example_id
    page = visit("/", **options)
    for name, path in pages.items():
        page.goto(path)
        if name == "study":
            drawn(page)
            assert figures_fit(page)
            page.wait_for_timeout(200)
        page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)
        assert no_sideways_scrolling(page), name


@pytest.mark.parametrize(("look", "options"), [("wide", {}), ("narrow", NARROW)])
def test_the_report_is_drawn_and_fits(
    visit: Open, finished: str, shots: Path, look: str, options: dict[str, object]
) -> None:
    page = visit(f"/studies/{finished}", **options)
    page.get_by_role("link", name="Report", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Plan of finished")
    for slug in ("best", "curves", "pareto", "allocation", "prediction-1"):
        expect(page.locator(f"#figure-{slug} .main-svg").first).to_be_visible(timeout=20 * SECONDS)
    inside = page.evaluate(
        "() => [...document.querySelectorAll('.plots figure')].every((f) =>"
        " f.querySelector('.main-svg').getBoundingClientRect().right <= f.getBoundingClientRect().right + 1)"
    )
    assert inside
    assert no_sideways_scrolling(page)
    page.screenshot(path=shots / f"report-{look}.png", full_page=True)


def test_without_javascript_a_study_is_still_readable(visit: Open, finished: str) -> None:
    page = visit(f"/studies/{finished}", java_script_enabled=False)
    expect(page.get_by_role("heading", name="The plan", exact=True)).to_be_visible()
    expect(page.locator("#live-trials tbody tr").first).to_be_visible()
    expect(page.get_by_role("link", name="Plan as YAML", exact=True)).to_be_visible()


def test_the_form_works_with_the_keyboard_alone(visit: Open) -> None:
    page = visit("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.goto("/studies/new")
    page.locator("#field-name").focus()
    page.keyboard.press("Tab")
    expect(page.locator("#field-description")).to_be_focused()


def test_the_switch_outvotes_the_system_and_is_remembered(visit: Open) -> None:
    page = visit("/", color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(ground) == "rgb(16, 21, 28)"
    page.goto("/studies/new")
    assert page.evaluate(ground) == "rgb(16, 21, 28)"
    expect(page.get_by_role("button", name="Dark colours")).to_have_attribute("aria-pressed", "true")
