from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.api.service import Service, ended, service_with_models, submit, tiny_spec

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Open = Callable[..., Page]


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the whole folder."""
    with service_with_models(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="package")
def finished(service: Service) -> str:
    """Id of a study that has run to its plan."""
    return str(ended(service, submit(service, tiny_spec(name="finished")))["id"])


@pytest.fixture(scope="package")
def chromium(service: Service) -> Iterator[Browser]:
    """The browser; after the service, as Playwright leaves an event loop in this thread that DBOS would refuse."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Browser, service: Service) -> Iterator[Open]:
    """Opens a page of the service; at the end, no page may have logged an error or asked another host."""
    troubles: list[str] = []
    contexts = []

    def opened(path: str, expected_status: int = 200, **options: object) -> Page:
        context = chromium.new_context(base_url=service.url, **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: troubles.append(m.text) if m.type == "error" and "422" not in m.text else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url.startswith((service.url, "data:", "blob:")) else troubles.append(r.url),
        )
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == expected_status
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go; APPORTION_SCREENSHOTS keeps them."""
    folder = Path(os.environ.get("APPORTION_SCREENSHOTS", str(tmp_path / "shots")))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
