"""What no request gets past, and how errors look."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from api.bodies import MAX_BODY_BYTES
from api.serve import ServeError, bound_socket
from planner.archive import ArchiveError
from tests.api.service import Service, tiny_spec

PROBLEM = "application/problem+json"


def test_a_foreign_host_name_is_refused(service: Service) -> None:
    answer = service.http.get("/", headers={"host": "rebound.example"})
    assert answer.status_code == 421


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_a_change_from_another_site_is_refused(service: Service, headers: dict[str, str]) -> None:
    answer = service.http.post("/api/v1/studies", json=tiny_spec(), headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == PROBLEM
    assert service.http.get("/api/v1/studies", headers=headers).status_code == 200


def test_a_body_above_the_limit_is_refused_with_or_without_a_stated_length(service: Service) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    headers = {"content-type": "application/json"}
    stated = service.http.post("/api/v1/studies", content=b" " * (MAX_BODY_BYTES + 1), headers=headers)
    streamed = service.http.post("/api/v1/studies", content=chunks(), headers=headers)
    assert [stated.status_code, streamed.status_code] == [413, 413]
    assert {stated.headers["content-type"], streamed.headers["content-type"]} == {PROBLEM}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/v1/nothing", 404), ("GET", "/api/v1/studies/nothing", 404), ("PUT", "/api/v1/studies", 405)],
)
def test_errors_of_the_interface_are_problem_details(service: Service, method: str, path: str, status: int) -> None:
    answer = service.http.request(method, path, headers={"accept": "text/html"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["status"] == status


def test_a_browser_gets_errors_as_a_page(service: Service) -> None:
    answer = service.http.get("/studies/nothing", headers={"accept": "text/html"})
    assert answer.status_code == 404
    assert "no study has the id" in answer.text
    assert service.http.get("/studies/nothing").headers["content-type"] == PROBLEM


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (ArchiveError("the disk is full; free space"), 503, "the disk is full; free space"),
        (RuntimeError("secret"), 500, "The service met a fault of its own; its log has the details."),
    ],
)
def test_a_broken_archive_is_503_and_a_fault_of_ours_500_without_details(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, detail: str
) -> None:
    def broken(**_: object) -> None:
        raise error

    monkeypatch.setattr(service.runtime.archive.studies, "list", broken)
    answer = service.http.get("/readyz")
    assert answer.status_code == status
    assert answer.json()["detail"] == detail
    assert answer.headers.get("connection") == ("close" if status == 500 else None)


def test_every_answer_has_a_strict_policy(service: Service) -> None:
    for path in ("/", "/api/v1/studies", "/static/app.css", "/api/v1/nothing"):
        headers = service.http.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


def test_assets_are_kept_by_browsers(service: Service) -> None:
    answer = service.http.get("/static/plotly.min.js")
    assert "immutable" in answer.headers["cache-control"]
    again = service.http.get("/static/plotly.min.js", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_form_without_the_visitors_token_is_refused(service: Service) -> None:
    with httpx.Client(base_url=service.url) as visitor:
        visitor.get("/studies/new")
        for token in ("", "guessed"):
            answer = visitor.post("/studies/new", data={"form_token": token, "name": "forged"})
            assert answer.status_code == 403
    assert service.http.get("/api/v1/studies", params={"name": "forged"}).json()["items"] == []


def test_a_taken_port_is_named() -> None:
    with bound_socket("127.0.0.1", 0) as held, pytest.raises(ServeError, match="choose another host or port"):
        bound_socket("127.0.0.1", held.getsockname()[1])
