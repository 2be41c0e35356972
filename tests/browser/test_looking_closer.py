"""Lists, trials, examples and the fleet in a real browser; and what a screen reader would find on every page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import insert

from env.spec import StudySpec
from planner.archive import Archive
from planner.archive.sessions import utc_now
from planner.archive.tables import TrialRow, table_of
from tests.api.service import Service, tiny_spec
from tests.browser.conftest import Open
from tests.planner.archive.samples import a_result, an_allocation

pytestmark = pytest.mark.browser

SECONDS = 1000
READING = (Path(__file__).parent / "accessibility.js").read_text("utf-8")
STYLES = Path(__file__).parents[2] / "api" / "pages" / "static" / "app.css"


def a_study(archive: Archive, name: str, status: str = "running") -> str:
    spec = StudySpec.model_validate(tiny_spec(name=name))
    study = archive.studies.create(name, spec.name, spec.model_dump(mode="json"), 0).id
    if status != "queued":
        archive.studies.set_status(study, status)  # type: ignore[arg-type]
    return study


@pytest.fixture(scope="module")
def long_study(service: Service) -> Iterator[str]:
    """A study of 10,000 trials, without their evidence."""
    archive = service.runtime.archive
    study = a_study(archive, "ten-thousand")
    result = a_result((0.5, 0.7))
    archive.trials.record(study, 1, "search", 0, result, "FLOPs")
    trials = table_of(TrialRow)
    with archive.engine.connect() as connection:
        first = dict(connection.execute(trials.select().where(trials.c.study_id == study)).mappings().one())
    with archive.engine.begin() as connection:
        rows = [
            {
                **first,
                "trial_no": n,
                "round": n // 4,
                "allocation": an_allocation(n).to_json(),
                "allocation_key": str(an_allocation(n)),
                "score": (n * 7919 % 10_007) / 10_007,
                "predicted_cost": 1e6 + n * 104_729 % 10_007,
                "created_at": utc_now(),
            }
            for n in range(2, 10_001)
        ]
        connection.execute(insert(trials), rows)
    yield study
    # Nobody runs it, so a worker may have found that out and ended it.
    if archive.studies.get(study).status == "running":
        archive.studies.set_status(study, "cancelled")
    archive.studies.delete(study)


def test_a_study_of_ten_thousand_trials_is_thinned_sorted_and_paged(
    visit: Open, service: Service, long_study: str, shots: Path
) -> None:
    figures = service.http.get(f"/studies/{long_study}/figures.json").json()
    shown = figures["pareto"]["data"]
    numbers = {number for trace in shown for number in trace["customdata"]}
    assert 100 < len(numbers) <= 400
    best = max(range(2, 10_001), key=lambda n: n * 7919 % 10_007)
    assert best in numbers, "thinning may not lose the best trial"
    page = visit(f"/studies/{long_study}")
    expect(page.get_by_text("Page 1 of 200, 10,000 trials")).to_be_visible()
    expect(page.locator("#live-trials tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Score ± standard error").click()
    page.wait_for_url(re.compile("sort=score&order=down"))
    rows = page.locator("#live-trials tbody tr")
    expect(rows.first.get_by_role("link")).to_have_text(str(best))
    expect(page.get_by_role("columnheader", name="Score ± standard error")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="Next page").click()
    page.wait_for_url(re.compile("page=2"))
    # The address says it all: another visitor sees the same.
    expect(visit(page.url.removeprefix(service.url)).locator("#live-trials tbody tr").first).to_contain_text(
        rows.first.inner_text().split()[0]
    )


def test_a_click_on_a_point_leads_to_its_trial(visit: Open, finished: str) -> None:
    page = visit(f"/studies/{finished}")
    points = page.locator("#figure-best .scatterlayer .trace:last-of-type .point")
    expect(points.first).to_be_visible(timeout=20 * SECONDS)
    page.locator("#figure-best").scroll_into_view_if_needed()
    box = points.first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_url(re.compile(r"/trials/\d+$"))
    expect(page.get_by_role("heading", name="Why it was proposed")).to_be_visible()


def test_a_trial_tells_wrong_from_failed_and_leads_to_every_draw(visit: Open, finished: str, shots: Path) -> None:
    page = visit(f"/studies/{finished}")
    page.locator("#live-trials tbody tr.chosen").get_by_role("link").click()
    expect(page.get_by_text("Proposed by")).to_be_visible()
    cells = page.locator(".heat a")
    expect(cells).to_have_count(10)
    assert all(re.search(": (right|wrong|partly right|scored|failed), score", c) for c in cells.all_inner_texts())
    cells.first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Example")
    expect(page.get_by_role("heading", name="Stage find")).to_be_visible()
    expect(page.get_by_role("region", name="Draws of stage find")).to_be_visible()
    expect(page.get_by_role("region", name="Draws of stage solve")).to_be_visible()
    expect(page.get_by_role("region", name="Fields of the example")).to_contain_text("Gold")
    page.screenshot(path=shots / "example.png", full_page=True)


def test_failed_examples_and_those_not_evaluated_are_marked_apart(visit: Open, service: Service, shots: Path) -> None:
    archive = service.runtime.archive
    study = a_study(archive, "marked")
    result = replace(a_result((0.0, 1.0, None)), planned=6)
    archive.trials.record(study, 1, "search", 0, result, "FLOPs")
    page = visit(f"/studies/{study}/trials/1")
    expect(page.get_by_text("3 not evaluated").first).to_be_visible()
    expect(page.locator(".heat .cell.unseen")).to_have_count(3)
    expect(page.locator(".heat a.cell.failed")).to_have_text(re.compile("!"))
    page.get_by_role("navigation", name="Which examples").get_by_role("link", name="failed").click()
    expect(page.locator("[aria-label=Examples] tbody tr")).to_have_count(1)
    expect(page.get_by_text("the server gave up")).to_be_visible()
    page.screenshot(path=shots / "trial-marked.png", full_page=True)
    archive.studies.set_status(study, "cancelled")


def test_the_list_follows_its_studies_filters_by_address_and_deletes(visit: Open, service: Service) -> None:
    archive = service.runtime.archive
    study = a_study(archive, "listed-one", "queued")
    page = visit("/?q=listed-one")
    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("queued")
    archive.studies.set_status(study, "cancelled")
    archive.events.append(study, "status", {"status": "cancelled"})
    expect(row.locator(".badge")).to_have_text("cancelled", timeout=10 * SECONDS)
    expect(page.get_by_label("Search")).to_have_value("listed-one")
    row.get_by_text("Delete", exact=True).click()
    row.get_by_role("button", name="Delete for good listed-one").click()
    page.wait_for_url("**/")
    page.goto("/?q=listed-one")
    expect(page.get_by_text("No study fits.")).to_be_visible()


def test_the_fleet_shows_workers_and_says_what_is_not_configured(visit: Open) -> None:
    page = visit("/")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Fleet").click()
    expect(page.get_by_text("No fleet file is configured")).to_be_visible()
    expect(page.get_by_role("region", name="Workers")).to_contain_text("alive")


def test_every_page_has_labels_headings_and_names(visit: Open, finished: str) -> None:
    page = visit("/")
    for path in (
        "/",
        "/studies/new",
        f"/studies/{finished}",
        f"/studies/{finished}/trials/1",
        f"/studies/{finished}/trials/1/examples/e0",
        "/fleet",
        "/schedules",
        "/api",
    ):
        answer = page.goto(path)
        assert answer is not None
        if answer.status == 404 and "examples" in path:
            continue
        assert faults_of(page) == [], path


def faults_of(page: Page) -> list[str]:
    """What keeps somebody who cannot see the page from using it."""
    return list(page.evaluate(READING))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_the_palette_has_enough_contrast(theme: int) -> None:
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLES.read_text("utf-8"))
    colours = {name: pair[theme] for name, *pair in found}
    for ground in ("ground", "panel", "field"):
        for ink in ("ink", "soft", "accent", "wrong", "good", "warn"):
            low, high = sorted((luminance(colours[ground]), luminance(colours[ink])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, ink)
        low, high = sorted((luminance(colours[ground]), luminance(colours["edge"])))
        assert (high + 0.05) / (low + 0.05) >= 3, (ground, "edge")
