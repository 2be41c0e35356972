"""Uploaded data sets over HTTP: formats, faults, limits, a full disk, and a study on one."""

from __future__ import annotations

import ctypes
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from api.app import create_app
from api.settings import Settings
from env.tasks.data import data_root
from tests.api.service import Service, ended, served_app, submit, tiny_spec
from tests.api.test_lists import every_item

ROWS = [{"id": f"e{i}", "question": f"w{i} w{i + 1}", "answer": "w"} for i in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
JSONL = {"content-type": "application/x-ndjson"}


def upload(service: Service, name: str, content: str | bytes, media: str = JSONL["content-type"]) -> httpx.Response:
    headers = {"content-type": media}
    return service.http.post("/api/v1/datasets", params={"name": name}, content=content, headers=headers)


def files() -> list[str]:
    folder = data_root() / "datasets"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def test_an_uploaded_data_set_is_the_data_of_a_study(service: Service) -> None:
    made = upload(service, "questions", LINES)
    assert made.status_code == 201, made.text
    dataset = made.json()
    assert (dataset["rows"], dataset["fields"], dataset["uploaded_as"]) == (20, ["question"], "jsonl")
    assert made.headers["location"] == "/api/v1/datasets/questions"
    spec = tiny_spec(name="on-upload", data={**dataset["data"], "search": 10, "test": 10})
    study = submit(service, spec)
    refused = service.http.delete("/api/v1/datasets/questions")
    assert (refused.status_code, study in refused.text) == (409, True)
    assert ended(service, study)["status"] == "done"
    assert service.http.delete("/api/v1/datasets/questions").status_code == 204
    assert service.http.get("/api/v1/datasets/questions").status_code == 404
    assert not (data_root() / dataset["data"]["path"]).exists()


def test_a_data_set_that_a_schedule_reads_is_not_deleted(service: Service) -> None:
    data = upload(service, "scheduled", LINES).json()["data"]
    body = {"name": "on-data", "cron": "0 3 1 1 *", "spec": tiny_spec(data={**data, "search": 10, "test": 10})}
    made = service.http.post("/api/v1/schedules", json=body)
    assert made.status_code == 201, made.text
    refused = service.http.delete("/api/v1/datasets/scheduled")
    assert (refused.status_code, "on-data" in refused.text) == (409, True)
    service.http.delete("/api/v1/schedules/on-data")
    assert service.http.delete("/api/v1/datasets/scheduled").status_code == 204


def test_all_formats_and_forms_of_the_same_rows_are_one_content(service: Service) -> None:
    table = "id,question,answer\n" + "".join(f"{r['id']},{r['question']},{r['answer']}\n" for r in ROWS)
    sent = {
        "as-lines": upload(service, "as-lines", LINES),
        "as-table": upload(service, "as-table", table, "text/csv; charset=utf-8"),
        "as-parquet": upload(service, "as-parquet", parquet(ROWS), "application/vnd.apache.parquet"),
        "as-form": service.http.post(
            "/api/v1/datasets", params={"name": "as-form"}, files={"file": ("rows.csv", table, "text/csv")}
        ),
        "as-told": service.http.post("/api/v1/datasets", params={"name": "as-told", "format": "csv"}, content=table),
    }
    assert {name: answer.status_code for name, answer in sent.items()} == dict.fromkeys(sent, 201)
    assert len({answer.json()["digest"] for answer in sent.values()}) == 1
    rows = every_item(service, "/api/v1/datasets/as-parquet/rows", 7)
    assert [row["row"] for row in rows] == ROWS
    assert [row["number"] for row in rows] == list(range(1, 21))
    listed = [d["name"] for d in every_item(service, "/api/v1/datasets", 2)]
    assert listed == sorted(listed)
    assert set(sent) <= set(listed)


def test_the_same_rows_again_are_no_fault_and_other_rows_are(service: Service) -> None:
    first = upload(service, "again", LINES)
    assert upload(service, "again", LINES).json() == first.json()
    before = files()
    other = upload(service, "again", LINES.replace("w0", "w9"))
    assert (other.status_code, files()) == (409, before)


BROKEN = [
    ("no-json", LINES + "{\n", JSONL["content-type"], "line 21"),
    ("no-object", LINES + "[]\n", JSONL["content-type"], "line 21"),
    ("no-answer", LINES + '{"question": "x"}\n', JSONL["content-type"], "line 21"),
    ("same-id", LINES + LINES, JSONL["content-type"], "line 21"),
    ("one-row", '{"answer": "x"}\n', JSONL["content-type"], ""),
    ("nothing", "", JSONL["content-type"], ""),
    ("no-utf8", b"\xff\xfe\n", JSONL["content-type"], "line 1"),
    ("nul", '{"answer": "\\u0000"}\n' * 2, JSONL["content-type"], "line 1"),
    ("no-number", '{"x": NaN, "answer": "a"}\n{"answer": "b"}\n', JSONL["content-type"], "line 1"),
    ("deep", '{"x": ' + "[" * 100_000, JSONL["content-type"], "line 1"),
    ("few-cells", "a,answer\n1,2\n3\n", "text/csv", "line 3"),
    ("two-columns", "a,a\n1,2\n", "text/csv", "line 1"),
    ("open-quote", 'a,answer\n"1,2\n', "text/csv", "line 2"),
    ("no-parquet", "PAR1 or not", "application/vnd.apache.parquet", ""),
    ("binary", [{"answer": b"\x00"}, {"answer": b"\x01"}], "application/vnd.apache.parquet", "row 1"),
]


@pytest.mark.parametrize(("content", "media", "path"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_faulty_row_is_named_and_nothing_is_kept(service: Service, content: Any, media: str, path: str) -> None:
    before = files()
    answer = upload(service, "faulty", parquet(content) if isinstance(content, list) else content, media)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["faults"][0]["path"] == path
    assert answer.json()["faults"][0]["message"]
    assert service.http.get("/api/v1/datasets/faulty").status_code == 404
    assert files() == before


def test_other_media_types_and_names_are_refused(service: Service) -> None:
    assert upload(service, "typed", LINES, "text/plain").status_code == 415
    assert service.http.post("/api/v1/datasets?name=form", files={"other": ("x.csv", "a")}).status_code == 422
    for name in ("../x", "X", "", "a/b", ".x", "a" * 65):
        assert upload(service, name, LINES).status_code == 422


@pytest.fixture
def small(service: Service) -> Iterator[Service]:
    """The same service with narrow limits, on another port."""
    with served_app(
        service.runtime, create_app(service.runtime, settings=Settings(upload_bytes=4000, upload_rows=30))
    ) as running:
        yield running


def test_more_bytes_or_rows_than_allowed_are_refused_and_nothing_is_kept(small: Service) -> None:
    before = files()
    assert upload(small, "bytes", "x" * 200_000).status_code == 413

    def unsized() -> Iterator[bytes]:
        for _ in range(20):
            yield LINES[:1000].encode()

    streamed = small.http.post("/api/v1/datasets?name=bytes", content=unsized(), headers=JSONL)
    assert streamed.status_code == 413
    rows = "".join(f'{{"answer": "{i}"}}\n' for i in range(31))
    answer = upload(small, "rows", rows)
    assert (answer.status_code, "APPORTION_UPLOAD_ROWS" in answer.text) == (413, True)
    assert files() == before


def test_an_upload_may_be_larger_than_other_bodies(service: Service) -> None:
    filler = "w" * 500
    rows = (json.dumps({"answer": "w", "question": f"{filler} {i}"}) + "\n" for i in range(17_000))
    content = "".join(rows)
    assert len(content) > 8 * 1024 * 1024
    answer = upload(service, "large", content)
    assert (answer.status_code, answer.json()["rows"]) == (201, 17_000)
    assert service.http.post("/api/v1/spec/check", content=content, headers=JSONL).status_code == 413
    service.http.delete("/api/v1/datasets/large")


@pytest.fixture
def full_disk(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data root on a file system of a few pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() or libc.mount(b"tmpfs", str(tmp_path).encode(), b"tmpfs", 0, b"size=16k"):
        pytest.skip("mounting a small file system needs more rights")
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    try:
        yield tmp_path
    finally:
        libc.umount(str(tmp_path).encode())


def test_a_full_disk_is_a_problem_of_its_own_and_leaves_no_half_file(service: Service, full_disk: Path) -> None:
    answer = upload(service, "full", LINES * 20)
    assert answer.status_code == 507, answer.text
    assert (answer.headers["content-type"], files()) == ("application/problem+json", [])
    half = "".join(f'{{"answer": "w", "q": "{i:4000}"}}\n' for i in range(3))
    assert upload(service, "fits-once-only", half).status_code == 507, "the upload itself takes half of the disk"
    assert files() == []
    assert upload(service, "fits", '{"answer": "a"}\n{"answer": "b"}\n').status_code == 201
    service.http.delete("/api/v1/datasets/fits")
