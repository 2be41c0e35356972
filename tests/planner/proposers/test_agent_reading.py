"""Replies as LLMs write them: read as written, recovered where broken, never repaired to something near."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.proposers.agent.reading import read_guidelines, read_proposals
from planner.proposers.agent.recovery import find_items
from tests.planner.proposers.agent_cases import GOOD, GOOD_ALLOCATION, allocation, proposal, space

SPACE = space()
TEXT = json.dumps(GOOD)
TWO = json.dumps(
    {"proposals": [*GOOD["proposals"], proposal(retrieve=("large", "vote", 1), answer=("small", "vote", 9))]}
)


@pytest.mark.parametrize(
    "reply",
    [
        TEXT,
        json.dumps(GOOD, indent=2),
        f"```json\n{TEXT}\n```",
        f"<think>maybe {{retrieve: large}} or [1, 2</think>\nHere you are:\n{TEXT}\nGood luck!",
        f'First idea: {{"proposals": [{{"allocation": {{}}}}]}}. Better: {TEXT}',
        json.dumps(GOOD["proposals"]),
        json.dumps(GOOD["proposals"][0]),
        json.dumps({"answer": GOOD}),
        TEXT[:-1],
        TEXT[:-2],
        TEXT + "}}}",
        TEXT.replace('"samples": 4', '"samples": "4"').replace('"samples": 2', '"samples": 2.0'),
        json.dumps({"proposals": [{"allocation": {"retrieve": "small/vote/4", "answer": "medium/vote/2"}}]}),
    ],
)
def test_the_one_proposal_of_a_reply_is_found(reply: str) -> None:
    read = read_proposals(reply, 4)
    assert read is not None
    assert [p.allocation for p in read] == [GOOD_ALLOCATION]


def test_a_reply_that_breaks_off_keeps_its_whole_items() -> None:
    read = read_proposals(TWO[:-40], 4)
    assert read is not None
    assert [p.allocation for p in read] == [GOOD_ALLOCATION, None]
    assert read[1].problem == "not valid JSON: the reply breaks off"
    assert "large" in read[1].raw


def test_a_broken_item_does_not_take_the_others_with_it() -> None:
    good = json.dumps(GOOD["proposals"][0])
    read = read_proposals(f'{{"proposals": [{{"allocation": {{oops}}, "reason": "a}}"}}, {good}, 7, {good}]}}', 9)
    assert read is not None
    assert [p.allocation for p in read] == [None, GOOD_ALLOCATION, None, GOOD_ALLOCATION]
    assert read[0].problem == "not valid JSON"
    assert read[2].problem == "a proposal is an object with `allocation`"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (None, "an allocation is an object of stages"),
        ({}, "an allocation is an object of stages"),
        ({"retrieve": 3}, "retrieve: expected an object"),
        ({"retrieve": {"model": "small", "strategy": "vote"}}, "samples must be a whole number"),
        ({"retrieve": {"model": "small", "strategy": "vote", "samples": 2.5}}, "samples must be a whole number"),
        ({"retrieve": {"model": "small", "strategy": "vote", "samples": True}}, "samples must be a whole number"),
        ({"retrieve": {"model": "small", "strategy": "vote", "samples": "8 or 9"}}, "samples must be a whole number"),
        ({"retrieve": {"model": "small", "strategy": "vote", "samples": 10**30}}, "samples must be a whole number"),
        ({"retrieve": {"model": 1, "strategy": "vote", "samples": 2}}, "model and strategy must be strings"),
        ({f"s{i}": {"model": "a", "strategy": "b", "samples": 1} for i in range(65)}, "65 stages"),
    ],
)
def test_what_cannot_be_read_says_why_and_keeps_its_text(written: object, problem: str) -> None:
    read = read_proposals(json.dumps({"proposals": [{"allocation": written, "reason": "r"}]}), 4)
    assert read is not None
    (item,) = read
    assert item.allocation is None
    assert problem in item.problem
    assert item.raw.startswith('{"allocation"')
    assert len(item.raw) <= 500


def test_unknown_names_and_missing_stages_are_left_for_review() -> None:
    read = read_proposals(json.dumps({"proposals": [proposal(elsewhere=("huge", "magic", 999))]}), 4)
    assert read is not None
    assert read[0].allocation == allocation(elsewhere=("huge", "magic", 999))


@pytest.mark.parametrize("expected", ["true", "NaN", "Infinity", "-Infinity", "1e999", '"0.5"', "null", "62", "[]"])
def test_an_expected_score_that_is_none_is_dropped(expected: str) -> None:
    reply = TEXT.replace('"expected_score": 0.5', f'"expected_score": {expected}')
    read = read_proposals(reply, 4)
    assert read is not None
    assert read[0].allocation == GOOD_ALLOCATION
    assert read[0].expected_score is None


def test_no_more_than_wanted_is_read() -> None:
    read = read_proposals(json.dumps({"proposals": GOOD["proposals"] * 500}), 3)
    assert read is not None
    assert len(read) == 3


def test_long_reasons_are_cut() -> None:
    read = read_proposals(TEXT.replace("because", "long " * 10_000), 1)
    assert read is not None
    assert len(read[0].reason) == 400


@pytest.mark.parametrize(
    "reply", ["[" * 200_000, "{" * 200_000, '{"a":' * 100_000, '{"proposals":[' * 20_000, "[1," * 99_999]
)
def test_huge_nonsense_is_read_in_bounded_time(reply: str) -> None:
    started = time.monotonic()
    assert not any(item.allocation for item in read_proposals(reply, 4) or ())
    assert not read_guidelines(reply, SPACE, 1)
    assert time.monotonic() - started < 20, "quadratic reading would take minutes"


def test_guidelines_keep_good_items_and_good_fields_only() -> None:
    fields = {"preferred_model": "medium", "direction": "sideways", "plateau": "4", "shift_budget_to": "nowhere"}
    items = [
        {"insight": 1, "stage": "answer", "text": "pursue medium", "structured": fields},
        {"insight": 2, "stage": "attic", "text": "no such stage"},
        {"insight": 9, "stage": None, "text": "no such insight"},
        {"insight": True, "stage": None, "text": "no insight"},
        {"insight": "3", "stage": None, "text": "z" * 9999, "structured": {"shift_budget_from": "retrieve"}},
        {"insight": 0, "stage": None, "text": "   "},
        "a sentence",
    ]
    read = read_guidelines(json.dumps({"guidelines": items}), SPACE, 5)
    assert read is not None
    first, second = read
    assert (first.round, first.insight, first.stage, first.text) == (5, 1, "answer", "pursue medium")
    assert first.structured == {"preferred_model": "medium", "plateau": 4}
    assert (second.insight, second.stage, len(second.text)) == (3, None, 400)
    assert second.structured == {"shift_budget_from": "retrieve"}


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["proposals", "guidelines", "allocation", "text", "samples", "model", "insight"])
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet='{}[]",:\\ \nproposalsguidelinestext0123456789ntf', max_size=300) | st.text(max_size=200))
def test_any_text_is_read_without_an_exception(reply: str) -> None:
    for text in (reply, '{"proposals": [' + reply):
        assert all(item.allocation is None or item.problem == "" for item in read_proposals(text, 4) or ())
    assert all(guideline.text for guideline in read_guidelines(reply, SPACE, 1) or ())


@settings(max_examples=80, deadline=None)
@given(JSON)
def test_any_json_is_read_without_an_exception(value: object) -> None:
    for key in ("proposals", "guidelines"):
        reply = json.dumps({key: value if isinstance(value, list) else [value]})
        for item in read_proposals(reply, 4) or ():
            assert (item.allocation is None) == bool(item.problem)
            assert item.expected_score is None or math.isfinite(item.expected_score)
        read_guidelines(reply, SPACE, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(TWO)))
def test_a_reply_cut_anywhere_gives_only_items_that_were_written(cut: int) -> None:
    whole = read_proposals(TWO, 4) or ()
    for item in read_proposals(TWO[:cut], 4) or ():
        assert item.allocation is None or item.allocation in {p.allocation for p in whole}


def test_nothing_to_find_is_none() -> None:
    assert find_items("no JSON here, [1] and {} aside", "proposals", "allocation") is None
