"""The plans' pages in a real browser: a plan is found, named, compared, copied and taken away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.api.service import Service, ended, submit, tiny_spec
from tests.browser.conftest import Open
from tests.browser.test_pages import DARK, NARROW, drawn, figures_fit, no_sideways_scrolling

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def smaller(service: Service) -> str:
    """A second study, with half the budget."""
    spec = tiny_spec(name="smaller")
    spec["budget"] = {"plan": {"limit": 4e6, "unit": "flops"}, "search": {"trials": 3}}
    return str(ended(service, submit(service, spec))["id"])


def test_a_plan_is_found_named_and_asked_by_its_name(visit: Open, service: Service, finished: str) -> None:
    page = visit("/plans")
    page.get_by_role("link", name=re.compile(rf"finished, {finished}$")).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Plan of finished")
    page.get_by_label("Serve this plan under the name").fill("9 lives")
    page.get_by_role("button", name="Promote").click()
    expect(page.locator("#field-name-faults")).to_contain_text("starts with a letter")
    page.get_by_label("Serve this plan under the name").fill("shop")
    page.get_by_role("button", name="Promote").click()
    expect(page.get_by_role("status").first).to_contain_text("shop stands for this plan from now on")
    expect(page.locator("#snippet")).to_contain_text('model="plan:shop"')
    reply = service.http.post(
        "/v1/chat/completions", json={"model": "plan:shop", "messages": [{"role": "user", "content": "w1"}]}
    )
    assert reply.json()["apportion"]["plan"] == finished
    page.reload()
    expect(page.locator("dl.figures")).to_contain_text("its models are loaded in this process")
    budget = page.get_by_role("region", name="Points of the front").locator("code").first.inner_text()
    found = service.http.get(f"/v1/models/{budget}").json()["apportion"]
    assert found["trial"] == service.http.get(f"/api/v1/studies/{finished}/plan").json()["pareto"][0]["trial_no"]
    page.goto("/plans")
    expect(page.get_by_role("region", name="Served names")).to_contain_text("shop")


def test_the_snippet_is_copied_and_runs_as_it_stands(visit: Open, service: Service, finished: str) -> None:
    page = visit(f"/plans/{finished}", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    copied = str(page.evaluate("() => navigator.clipboard.readText()"))
    assert f'base_url="{service.url}/v1"' in copied
    exec(compile(copied, "snippet", "exec"), {})


def test_what_changes_is_shown_between_two_plans(visit: Open, finished: str, smaller: str, shots: Path) -> None:
    page = visit(f"/plans/{finished}")
    page.get_by_label("From this plan to").select_option(smaller)
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What changes")
    expect(page.get_by_role("region", name="Stages of both plans").locator("tbody tr")).to_have_count(2)
    expect(page.locator("dl.figures")).to_contain_text("10 examples")
    page.screenshot(path=shots / "plan-diff.png", full_page=True)
    page.get_by_role("link", name="The other way round").click()
    expect(page.locator("p.meta")).to_contain_text(f"From smaller, {smaller}")


def test_a_plan_is_taken_away_as_files(visit: Open, finished: str) -> None:
    page = visit(f"/plans/{finished}")
    with page.expect_download() as started:
        page.get_by_role("link", name="Python module (LangGraph)").click()
    assert started.value.suggested_filename == "plan.py"
    compile(started.value.path().read_text(), "plan.py", "exec")


@pytest.mark.parametrize(
    ("look", "options"), [("light", {}), ("dark", DARK), ("narrow", NARROW), ("narrow-dark", {**NARROW, **DARK})]
)
def test_plan_pages_fit_in_every_look(
    visit: Open, finished: str, smaller: str, shots: Path, look: str, options: dict[str, object]
) -> None:
    pages = {
        "plans": "/plans",
        "plan": f"/plans/{finished}",
        "plan-diff": f"/plans/{finished}/compare?with={smaller}",
    }
    page = visit("/", **options)
    for name, path in pages.items():
        page.goto(path)
        if name == "plan":
            drawn(page)
            assert figures_fit(page)
            page.wait_for_timeout(200)
        page.screenshot(path=shots / f"{name}-{look}.png", full_page=True)
        assert no_sideways_scrolling(page), name
