"""What every sample bank has to do, whatever keeps its draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.backends._base import Draw, ModelIdentity
from env.bank import AnswerBank, MemorySampleBank, SampleBank
from planner.archive import SqlSampleBank, migrate, open_engine
from tests.postgres import postgres, postgres_url
from tests.processes import Crowd

__all__ = ["postgres", "postgres_url"]

MODEL = ModelIdentity("small", "rev-1")


def a_key(number: object) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def a_draw(index: int, text: str = "four") -> Draw:
    return Draw(index, text, "stop", prompt_tokens=11, output_tokens=3, logprob=-0.1 - 0.2)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/bank.db"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def bank(request: pytest.FixtureRequest) -> Iterator[AnswerBank]:
    if request.param == "memory":
        yield MemorySampleBank()
        return
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    engine = open_engine(url)
    migrate(engine)
    yield SqlSampleBank(engine)
    engine.dispose()


def test_a_draw_comes_back_exactly_as_it_was_settled(bank: SampleBank) -> None:
    score = Draw(0, "", "score", prompt_tokens=40, output_tokens=0, logprob=None, score=1 / 3)
    assert bank.settle(MODEL, {a_key(1): [a_draw(0)], a_key(2): [score]}) == 2
    assert bank.held([a_key(1), a_key(2)]) == {a_key(1): (a_draw(0),), a_key(2): (score,)}


def test_keys_without_draws_are_absent(bank: SampleBank) -> None:
    assert bank.settle(MODEL, {a_key(1): [a_draw(0)], a_key(2): []}) == 1
    assert set(bank.held([a_key(1), a_key(2), a_key(3)])) == {a_key(1)}


def test_nothing_asked_is_nothing_answered(bank: SampleBank) -> None:
    assert bank.settle(MODEL, {}) == 0
    assert dict(bank.held([])) == {}


def test_the_same_key_may_be_asked_twice(bank: SampleBank) -> None:
    bank.settle(MODEL, {a_key(1): [a_draw(0)]})
    assert bank.held([a_key(1), a_key(1)]) == {a_key(1): (a_draw(0),)}


def test_draws_are_ordered_by_index_however_they_were_settled(bank: SampleBank) -> None:
    bank.settle(MODEL, {a_key(1): [a_draw(11), a_draw(2)]})
    bank.settle(MODEL, {a_key(1): [a_draw(7), a_draw(0)]})
    assert [draw.index for draw in bank.held([a_key(1)])[a_key(1)]] == [0, 2, 7, 11]


def test_the_first_draw_of_an_index_stays(bank: SampleBank) -> None:
    assert bank.settle(MODEL, {a_key(1): [a_draw(0, "first"), a_draw(1, "first")]}) == 2
    assert bank.settle(MODEL, {a_key(1): [a_draw(1, "second"), a_draw(2, "second")]}) == 1
    assert [draw.text for draw in bank.held([a_key(1)])[a_key(1)]] == ["first", "first", "second"]


def test_a_batch_that_names_an_index_twice_counts_it_once(bank: SampleBank) -> None:
    assert bank.settle(MODEL, {a_key(1): [a_draw(0, "first"), a_draw(0, "second")]}) == 1
    assert bank.held([a_key(1)])[a_key(1)] == (a_draw(0, "first"),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "naïve 数学 🧮 \u202e",
        "NUL \0 as some models write it",
        "a lone surrogate \ud83e, the escape \x1a and what looks escaped \x1a0000",
        "line\r\nbreaks\tand 'quotes\" \\ %s :name",
        "long " * 200_000,
    ],
    ids=["empty", "unicode", "nul", "surrogate", "punctuation", "long"],
)
def test_any_text_comes_back_exactly(bank: SampleBank, text: str) -> None:
    bank.settle(MODEL, {a_key(1): [a_draw(0, text)]})
    assert bank.held([a_key(1)])[a_key(1)][0].text == text


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec=None)) | st.text("\0\x1a\ud800a0"))
def test_no_text_is_changed(bank: SampleBank, text: str) -> None:
    key = a_key(ascii(text))
    bank.settle(MODEL, {key: [a_draw(0, text)]})
    assert bank.held([key])[key][0].text == text


PARSER, OTHER = a_key("parser"), a_key("other parser")


def test_kept_answers_come_back_by_parser_and_draw(bank: AnswerBank) -> None:
    bank.settle(
        MODEL, {a_key(1): [a_draw(0, "it is 4"), a_draw(1, "\ud83e 数"), a_draw(2, "?")], a_key(2): [a_draw(0)]}
    )
    bank.keep_answers(PARSER, {a_key(1): {0: "4", 1: "\ud83e" + "long " * 99, 2: None}})
    bank.keep_answers(OTHER, {a_key(1): {0: "four"}})
    assert bank.answers(PARSER, [a_key(1), a_key(2)]) == {a_key(1): {0: "4", 1: "\ud83e" + "long " * 99, 2: None}}
    assert bank.answers(OTHER, [a_key(1)]) == {a_key(1): {0: "four"}}
    assert bank.answers(a_key("unknown"), [a_key(1)]) == {}


def test_the_first_answer_kept_of_a_draw_stays(bank: AnswerBank) -> None:
    bank.settle(MODEL, {a_key(1): [a_draw(0)]})
    for answer in ("4", "5"):
        bank.keep_answers(PARSER, {a_key(1): {0: answer}})
    assert bank.answers(PARSER, [a_key(1)]) == {a_key(1): {0: "4"}}


def test_answers_of_draws_that_were_never_settled_are_ignored(bank: AnswerBank) -> None:
    bank.settle(MODEL, {a_key(1): [a_draw(0), a_draw(3, "")]})
    bank.keep_answers(PARSER, {a_key(1): {0: "4", 3: None, 7: "5"}, a_key(2): {0: "6"}})
    bank.keep_answers(PARSER, {})
    assert bank.answers(PARSER, [a_key(1), a_key(2)]) == {a_key(1): {0: "4"}}


def test_thousands_of_keys_are_settled_and_read_at_once(bank: SampleBank) -> None:
    draws = {a_key(number): [a_draw(0), a_draw(1)] for number in range(5000)}
    assert bank.settle(MODEL, draws) == 10_000
    absent = [a_key(f"absent {number}") for number in range(5000)]
    assert bank.held([*draws, *absent]) == {key: tuple(batch) for key, batch in draws.items()}


def test_threads_that_settle_the_same_draws_count_the_new_ones_once(bank: SampleBank) -> None:
    keys = [a_key(number) for number in range(200)]

    def settle(writer: int) -> int:
        ordered = keys if writer % 2 else keys[::-1]
        return sum(
            bank.settle(MODEL, {key: [a_draw(i, f"writer {writer}") for i in (1, 0)] for key in ordered[at : at + 50]})
            for at in range(0, 200, 50)
        )

    with ThreadPoolExecutor(4) as threads:
        new = list(threads.map(settle, range(4)))
    assert sum(new) == 400
    for draws in bank.held(keys).values():
        assert [draw.index for draw in draws] == [0, 1]


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    processes = Crowd(2)
    yield processes
    processes.close()


@pytest.mark.parametrize("database", ["sqlite_url", "postgres_url"])
def test_processes_that_settle_the_same_draws_count_the_new_ones_once(
    request: pytest.FixtureRequest, database: str, crowd: Crowd, tmp_path: Path
) -> None:
    url = request.getfixturevalue(database)
    (tmp_path / "meet").mkdir()
    assert sum(crowd.at_once(_settle, url, tmp_path / "meet")) == 600
    engine = open_engine(url)
    assert len(SqlSampleBank(engine).held([a_key(number) for number in range(300)])) == 300
    engine.dispose()


def _settle(url: str) -> int:
    engine = open_engine(url)
    migrate(engine)
    bank = SqlSampleBank(engine)
    new = sum(bank.settle(MODEL, {a_key(number): [a_draw(0), a_draw(1)]}) for number in range(300))
    engine.dispose()
    return new


@pytest.mark.parametrize("database", ["sqlite_url", "postgres_url"])
def test_settled_draws_outlive_the_bank(request: pytest.FixtureRequest, database: str) -> None:
    url = request.getfixturevalue(database)
    for new in (1, 0):
        engine = open_engine(url)
        migrate(engine)
        draw = a_draw(0) if new else replace(a_draw(0), text="other")
        assert SqlSampleBank(engine).settle(MODEL, {a_key(1): [draw]}) == new
        engine.dispose()
