"""Reports over HTTP: content negotiation, pictures, and a policy that lets in the page's own scripts alone."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET

import pytest

from tests.api.service import Service, long_spec, submit


@pytest.mark.parametrize(
    ("accept", "media_type", "begins"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8", "<!doctype html>"),
        ("text/markdown", "text/markdown; charset=utf-8", "# Plan of tiny"),
        ("application/json", "application/json", "{"),
        ("*/*", "application/json", "{"),
    ],
)
def test_a_report_comes_as_it_is_asked_for(
    service: Service, finished: str, accept: str, media_type: str, begins: str
) -> None:
    answer = service.http.get(f"/api/v1/studies/{finished}/report", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Accept"
    assert answer.text.lstrip().startswith(begins)


def test_the_format_in_the_address_comes_before_the_header(service: Service, finished: str) -> None:
    address = f"/api/v1/studies/{finished}/report"
    answer = service.http.get(address, params={"format": "md"}, headers={"accept": "text/html"})
    assert answer.text.startswith("# Plan of tiny")
    assert service.http.get(address, params={"format": "pdf"}).status_code == 422


def test_the_pictures_of_the_markdown_are_served_where_it_points(service: Service, finished: str) -> None:
    address = f"/api/v1/studies/{finished}/report"
    markdown = service.http.get(address, params={"format": "md"}).text
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown)
    assert len(pictures) >= 4
    for picture in pictures:
        answer = service.http.get(f"/api/v1/studies/{finished}/{picture}")
        assert answer.headers["content-type"] == "image/svg+xml"
        assert ET.fromstring(answer.text).tag.endswith("svg")
    missing = service.http.get(f"{address}/none.svg")
    assert missing.status_code == 404
    assert "there are best" in missing.json()["detail"]


def test_a_served_page_lets_in_its_own_scripts_and_no_others(service: Service, finished: str) -> None:
    answer = service.http.get(f"/api/v1/studies/{finished}/report", params={"format": "html"})
    policy = answer.headers["content-security-policy"]
    assert "unsafe-inline" not in policy.split("style-src")[0]
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", answer.text, re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    assert set(re.findall(r"'sha256-[^']+'", policy)) == hashes
    other = service.http.get(f"/studies/{finished}").headers["content-security-policy"]
    assert "script-src 'self'" in other


def test_a_study_without_a_plan_has_no_report_yet(service: Service) -> None:
    study = submit(service, long_spec())
    answer = service.http.get(f"/api/v1/studies/{study}/report")
    service.http.post(f"/api/v1/studies/{study}/cancel")
    assert answer.status_code == 404
    assert "it has one when it is done" in answer.json()["detail"]


def test_a_study_links_to_its_report(service: Service, finished: str) -> None:
    links = service.http.get(f"/api/v1/studies/{finished}").json()["links"]
    assert service.http.get(links["report"]).json()["study"]["id"] == finished
    assert f"{links['report']}?format=html" in service.http.get(f"/studies/{finished}").text
