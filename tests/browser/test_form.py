"""The form in a real browser, by what the page says: labels, visible text, and the keyboard."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.api.service import Service
from tests.browser.conftest import Open

pytestmark = pytest.mark.browser

SECONDS = 1000


def test_a_user_who_knows_only_what_the_page_says_gets_from_the_form_to_a_plan(visit: Open, shots: Path) -> None:
    page = visit("/")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="New study").click()
    page.get_by_label("Begin from").select_option(label="A quick look: two stages on bundled models, some seconds")
    page.get_by_role("button", name="Fill the form with it").click()
    expect(page.get_by_text("No faults: the study can be started.")).to_be_visible(timeout=20 * SECONDS)
    expect(page.get_by_text("fit the budget of one query")).to_be_visible()
    page.get_by_label("Name required").fill("my first")
    expect(page.get_by_text("1 fault, at its field.")).to_be_visible(timeout=10 * SECONDS)
    page.get_by_label("Name required").fill("my-first")
    expect(page.get_by_text("No faults: the study can be started.")).to_be_visible(timeout=10 * SECONDS)
    page.screenshot(path=shots / "form-guided.png", full_page=True)
    page.get_by_role("button", name="Start the study").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("my-first")
    expect(page.get_by_role("heading", name="The plan", exact=True)).to_be_visible(timeout=90 * SECONDS)
    expect(page.get_by_text("Is it distinguishable from the runner-up?")).to_be_visible()


def test_fields_and_yaml_follow_each_other_and_what_was_written_comes_back(visit: Open) -> None:
    page = visit("/studies/new?example=quick")
    page.get_by_text("The same study as YAML").click()
    text = page.get_by_label("Study in YAML")
    expect(page.get_by_text("No faults: the study can be started.")).to_be_visible(timeout=20 * SECONDS)
    page.get_by_label("Name required").fill("from-a-field")
    expect(text).to_have_value(re.compile("^name: from-a-field$", re.MULTILINE))
    written = "# mine\n" + text.input_value().replace("from-a-field", "from-the-text").replace("trials: 6", "trials: 7")
    text.fill(written)
    expect(page.get_by_label("Name required")).to_have_value("from-the-text")
    expect(page.locator("#field-budget-search-trials")).to_have_value("7")
    expect(page.get_by_label("this text")).to_be_checked()
    # A change of a field writes the text anew; what had been written can be had back.
    page.get_by_label("Name required").fill("again-a-field")
    expect(text).to_have_value(re.compile("^name: again-a-field$", re.MULTILINE))
    page.get_by_role("button", name="Bring back what I had written").click()
    expect(text).to_have_value(written)
    expect(page.get_by_label("Name required")).to_have_value("from-the-text")
    # Text that cannot be read leaves the fields as they are, with the fault beside it.
    text.fill("name: [")
    expect(page.locator("#spec-yaml-faults")).to_contain_text("not YAML")
    expect(text).to_have_attribute("aria-describedby", re.compile("spec-yaml-faults"))
    expect(page.get_by_label("Name required")).to_have_value("from-the-text")


def test_faults_come_beside_their_fields_while_typing_and_go_again(visit: Open) -> None:
    page = visit("/studies/new?example=quick")
    trials = page.locator("#field-budget-search-trials")
    trials.fill("0")
    expect(page.locator("#field-budget-search-trials-faults")).to_contain_text("greater than or equal to 1")
    expect(trials).to_have_attribute("aria-invalid", "true")
    expect(trials).to_have_attribute("aria-describedby", re.compile("field-budget-search-trials-faults"))
    trials.fill("6")
    expect(page.locator("#field-budget-search-trials-faults")).to_have_count(0)
    expect(trials).not_to_have_attribute("aria-invalid", "true")


def test_models_of_a_stage_are_chosen_without_losing_comments(visit: Open) -> None:
    page = visit("/studies/new?example=quick")
    pipeline = page.locator("#field-pipeline")
    pipeline.fill("# kept\n" + pipeline.input_value())
    # What was typed is read, and the boxes drawn anew from it, before a box is touched.
    page.wait_for_timeout(1500)
    page.wait_for_load_state("networkidle")
    group = page.get_by_role("group", name="Models of stage solve")
    group.get_by_label("xs", exact=True).uncheck()
    expect(pipeline).to_have_value(re.compile(r"^# kept$", re.MULTILINE))
    expect(pipeline).to_have_value(re.compile(r"name: solve.*models: \[s\]", re.DOTALL))
    expect(group.get_by_label("xs", exact=True)).not_to_be_checked()


def test_a_data_set_is_uploaded_and_chosen(visit: Open, service: Service) -> None:
    page = visit("/studies/new?example=quick")
    rows = b'{"question": "a", "answer": "b"}\n' * 4
    page.get_by_label("Upload a data set").set_input_files(
        {"name": "My Rows.jsonl", "mimeType": "application/x-ndjson", "buffer": rows}
    )
    expect(page.get_by_text("Kept as my-rows: 4 rows")).to_be_visible(timeout=10 * SECONDS)
    expect(page.locator("#field-data-source")).to_have_value("file")
    expect(page.locator("#field-data-file-path")).to_have_value(
        service.http.get("/api/v1/datasets/my-rows").json()["data"]["path"]
    )


def test_the_keyboard_alone_fills_and_sends_the_form(visit: Open) -> None:
    page = visit("/studies/new?example=quick")
    page.get_by_label("Name required").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("by-keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("by-keyboard", timeout=10 * SECONDS)
    page.get_by_role("button", name="Cancel the study").press("Enter")
    expect(page.locator("#live-head .badge")).to_have_text(re.compile("cancelled|done"), timeout=40 * SECONDS)
