"""Replay gives back what was recorded, and says so where nothing was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from env.backends import Draw, DrawRequest, Failed, Message, Sampling, Settled
from env.backends.replay_address import Address, AddressError, address_of, address_template
from env.backends.replay_backend import ReplayBackend
from env.backends.replay_import import import_qwen3
from env.backends.replay_pool import PoolError, open_pool
from env.errors import BackendError
from env.tasks.parsers import canonical
from env.tasks.prompts import render
from tests.env.backends.pools import SHARED, Row, a_draw, needs_qwen3, write_rows

ADDRESS = '{"stage": "solve", "example": "one", "upstream": []}'
LONG = Sampling(max_tokens=1000)


def backend_of(folder: Path, rows: Sequence[Row]) -> ReplayBackend:
    return ReplayBackend(open_pool(write_rows(folder / "pool.parquet", rows)), "small")


async def asked(
    backend: ReplayBackend, indices: Sequence[int], sampling: Sampling = LONG, address: str = ADDRESS
) -> Settled | Failed:
    request = DrawRequest((Message("system", "any"), Message("user", address)), sampling, tuple(indices))
    [outcome] = [outcome async for outcome in backend.generate([request])]
    return outcome


async def drawn(backend: ReplayBackend, indices: Sequence[int], **more: Any) -> tuple[Draw, ...]:
    outcome = await asked(backend, indices, **more)
    assert isinstance(outcome, Settled), outcome
    return outcome.draws


async def refused(backend: ReplayBackend, indices: Sequence[int], **more: Any) -> str:
    outcome = await asked(backend, indices, **more)
    assert isinstance(outcome, Failed), outcome
    return outcome.reason


@pytest.mark.asyncio
async def test_draw_i_is_the_recorded_draw_i_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    backend = backend_of(tmp_path, [a_draw(i, f"answer {i}", tokens_out=10 + i) for i in (5, 0, 3, 1)])
    assert await drawn(backend, (3, 0, 5)) == (
        Draw(3, "answer 3", "stop", 20, 13),
        Draw(0, "answer 0", "stop", 20, 10),
        Draw(5, "answer 5", "stop", 20, 15),
    )


@pytest.mark.asyncio
async def test_an_unrecorded_draw_fails_and_says_how_many_are_held(tmp_path: Path) -> None:
    reason = await refused(backend_of(tmp_path, [a_draw(i) for i in range(4)]), (2, 4, 7))
    assert "draw 4, 7 of stage 'solve', example 'one' is not recorded; 4 draws of it are held" in reason


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "address",
    [
        '{"stage": "solve", "example": "two"}',
        '{"stage": "other", "example": "one"}',
        '{"stage": "solve", "example": "one", "upstream": ["x"]}',
    ],
)
async def test_no_other_row_stands_in_for_one_that_was_not_recorded(tmp_path: Path, address: str) -> None:
    assert "0 draws of it are held" in await refused(backend_of(tmp_path, [a_draw()]), (0,), address=address)


@pytest.mark.asyncio
async def test_draws_after_other_upstream_answers_are_other_draws(tmp_path: Path) -> None:
    rows = [a_draw(0, answer, upstream=[up]) for answer, up in (("a", '"x"'), ("b", '"y"'), ("c", None))]
    backend = backend_of(tmp_path, rows)
    template = address_template("solve", ["find"])
    for value, text in (("x", "a"), ("y", "b"), ("", "c")):
        [draw] = await drawn(backend, (0,), address=render(template, {"example": "one", "find": value}))
        assert draw.text == text
    address = render(template, {"example": "one", "find": "z"})
    assert "(3 other upstream answers of this example are)" in await refused(backend, (0,), address=address)


@pytest.mark.asyncio
async def test_a_draw_without_an_answer_is_an_empty_text(tmp_path: Path) -> None:
    [draw] = await drawn(backend_of(tmp_path, [a_draw(0, None)]), (0,))
    assert (draw.text, draw.finish_reason, draw.output_tokens) == ("", "stop", 100)


CUT = {"cut_tokens": [30, 60, 90], "cut_answers": ["3", None, "9"]}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("most", "text", "finish", "tokens"),
    [
        (30, "3", "length", 30),
        (59, "3", "length", 59),
        (60, "", "length", 60),
        (99, "9", "length", 99),
        (100, "42", "stop", 100),
        (500, "42", "stop", 100),
    ],
)
async def test_max_tokens_selects_the_last_answer_probed_by_then(
    tmp_path: Path, most: int, text: str, finish: str, tokens: int
) -> None:
    backend = backend_of(tmp_path, [a_draw(**CUT)])
    [draw] = await drawn(backend, (0,), sampling=Sampling(max_tokens=most))
    assert (draw.text, draw.finish_reason, draw.output_tokens) == (text, finish, tokens)


@pytest.mark.asyncio
@pytest.mark.parametrize(("cuts", "least"), [(CUT, 30), ({}, 100)])
async def test_a_cut_nobody_probed_fails_and_says_what_can_be_asked(
    tmp_path: Path, cuts: dict[str, Any], least: int
) -> None:
    reason = await refused(backend_of(tmp_path, [a_draw(**cuts)]), (0,), sampling=Sampling(max_tokens=29))
    assert f"raise max_tokens to {least} or more" in reason


@pytest.mark.asyncio
async def test_stop_strings_fail_rather_than_being_ignored(tmp_path: Path) -> None:
    assert "stop" in await refused(
        backend_of(tmp_path, [a_draw()]), (0,), sampling=Sampling(max_tokens=999, stop=("x",))
    )


@pytest.mark.asyncio
@pytest.mark.parametrize("text", ["What is 6 times 7?", "[]", '{"stage": "solve"}', '{"stage": 1, "example": "one"}'])
async def test_a_prompt_without_an_address_fails_with_an_example_of_one(tmp_path: Path, text: str) -> None:
    assert '{"stage": "solve", "example": "7"' in await refused(backend_of(tmp_path, [a_draw()]), (0,), address=text)


def test_other_content_is_another_revision(tmp_path: Path) -> None:
    one = backend_of(tmp_path, [a_draw(0, "a")]).identity
    other = backend_of(tmp_path, [a_draw(0, "b")]).identity
    assert one.name == other.name == "small"
    assert one.revision != other.revision


def test_an_unknown_model_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"no draws of 'giant'; it has small"):
        ReplayBackend(open_pool(write_rows(tmp_path / "p.parquet", [a_draw()])), "giant")


def without(column: str) -> list[Row]:
    return [{name: value for name, value in a_draw().items() if name != column}]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (without("upstream"), "no column upstream"),
        (without("tokens_out"), "no column tokens_out"),
        ([a_draw(cut_tokens=[3])], "cut_tokens and cut_answers belong together"),
        ([a_draw(0), a_draw(1), a_draw(0)], "rows 1 and 3 are both draw 0"),
        ([a_draw(0), a_draw(-1)], "draw is negative in row 2"),
        ([a_draw(), a_draw(1, example=None)], "example is null in row 2"),
        ([a_draw(tokens_out="many")], "column tokens_out is string, expected int64"),
        ([a_draw(upstream=["unquoted"])], "row 1: upstream 'unquoted' is not the canonical JSON"),
        ([a_draw(upstream=['{"b": 1, "a": 2}'])], "not the canonical JSON"),
        ([a_draw(cut_tokens=[5, 5], cut_answers=["1", "2"])], "row 1: cut_tokens must ascend"),
        ([a_draw(cut_tokens=[100], cut_answers=["1"])], r"end below tokens_out \(100\)"),
        ([a_draw(cut_tokens=[5, 6], cut_answers=["1"])], "one of cut_answers each"),
    ],
)
def test_an_unsound_pool_is_refused_with_its_place(tmp_path: Path, rows: list[Row], words: str) -> None:
    with pytest.raises(PoolError, match=words):
        open_pool(write_rows(tmp_path / "pool.parquet", rows))


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pool.parquet").write_text("no parquet")
    with pytest.raises(PoolError, match="not a readable Parquet file"):
        open_pool(tmp_path / "pool.parquet")
    with pytest.raises(PoolError, match="cannot be read"):
        open_pool(tmp_path / "absent.parquet")


answers = (
    st.none() | st.text(min_size=1) | st.lists(st.integers(), min_size=1) | st.dictionaries(st.text(), st.floats(-9, 9))
)


@given(example=st.text(min_size=1), upstream=st.lists(answers, max_size=3))
def test_any_example_and_any_answers_come_through_the_prompt(example: str, upstream: list[Any]) -> None:
    names = [f"s{i}" for i in range(len(upstream))]
    variables = {"example": example, **{n: "" if a is None else a for n, a in zip(names, upstream, strict=True)}}
    text = render(address_template("solve", names), variables)
    found = address_of([Message("user", text)])
    assert found == Address("solve", example, tuple(canonical(a) for a in upstream))


def test_an_empty_prompt_has_no_address() -> None:
    with pytest.raises(AddressError):
        address_of([])


QWEN3 = {
    "benchmark": "aime24",
    "model": "Qwen3-4B",
    "question_id": 3,
    "sample": 7,
    "tokens": 1700,
    "answer": "42",
    "probe_every": 500,
    "probes": ["10", "ERR", "42"],
    "gold": "42",
}


def write_qwen3(folder: Path) -> tuple[Path, Path]:
    pools = [QWEN3, {**QWEN3, "benchmark": "aime25", "tokens": 900, "answer": "ERR", "probes": ["8", "ERR"]}]
    asked_ = [{"benchmark": b, "question_id": 3, "question": "How many?", "gold": "42"} for b in ("aime24", "aime25")]
    return write_rows(folder / "qwen3.parquet", pools), write_rows(folder / "questions.parquet", asked_)


@pytest.mark.asyncio
async def test_imported_solutions_can_be_cut_at_their_probes(tmp_path: Path) -> None:
    written = import_qwen3(*write_qwen3(tmp_path), tmp_path / "out")
    assert written == {"draws": 2, "examples": 2, "cuts": 3}
    backend = ReplayBackend(open_pool(tmp_path / "out" / "pool.parquet"), "Qwen3-4B")
    address = '{"stage": "solve", "example": "aime24-3"}'
    found = [
        (await drawn(backend, (7,), sampling=Sampling(max_tokens=most), address=address))[0]
        for most in (500, 1200, 1699, 1700)
    ]
    assert [(d.text, d.finish_reason, d.output_tokens) for d in found] == [
        ("10", "length", 500),
        ("", "length", 1200),
        ("", "length", 1699),
        ("42", "stop", 1700),
    ]


def test_the_import_command_says_what_a_source_lacks(tmp_path: Path) -> None:
    pools, questions = write_qwen3(tmp_path)
    command = [sys.executable, "-m", "env.backends.replay_import", "qwen3", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--pools", str(questions), "--questions", str(questions)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "questions.parquet: no column answer, model, probe_every, probes, sample, tokens"
    subprocess.run([*command, "--pools", str(pools), "--questions", str(questions)], check=True, capture_output=True)
    assert pq.read_table(tmp_path / "out" / "gold.parquet").column("split").to_pylist() == ["search", "test"]


@needs_qwen3
@pytest.mark.asyncio
async def test_the_recorded_qwen3_pools_come_through_the_import_unchanged(tmp_path: Path) -> None:
    folder = SHARED / "qwen3_math"
    source = folder / "qwen3_aime_pools.parquet"
    import_qwen3(source, folder / "qwen3_aime_questions.parquet", tmp_path)
    backend = ReplayBackend(open_pool(tmp_path / "pool.parquet"), "Qwen3-1.7B")
    rows = pq.read_table(source, filters=[("model", "=", "Qwen3-1.7B"), ("question_id", "=", 3)]).to_pylist()
    assert len(rows) >= 128
    for row in rows[:40]:
        address = f'{{"stage": "solve", "example": "{row["benchmark"]}-{row["question_id"]}"}}'
        whole, cut = [
            (await drawn(backend, (row["sample"],), sampling=Sampling(max_tokens=most), address=address))[0]
            for most in (100_000, 1000)
        ]
        assert (whole.text or "ERR", whole.output_tokens) == (row["answer"], row["tokens"])
        assert (cut.text or "ERR", cut.output_tokens) == (row["probes"][1], 1000)
