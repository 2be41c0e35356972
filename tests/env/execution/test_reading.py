from __future__ import annotations

from dataclasses import replace

import pytest

from env.backends import Draw, ModelIdentity
from env.bank import AnswerBank, MemorySampleBank, parser_key
from env.execution.reading import Reader
from env.spec.stage import IdsParser, RegexParser, TextParser

KEY = "a" * 64
MODEL = ModelIdentity("m", "r")
NUMBER = RegexParser(kind="regex", pattern=r"\d+")
DRAWS = tuple(Draw(i, text, "stop", 1, 1) for i, text in enumerate(("it is 4", "no idea", "", "5")))


class Forgetful(MemorySampleBank):
    """A bank that dropped every text."""

    def texts_gone(self) -> tuple[Draw, ...]:
        return tuple(replace(d, text="", text_dropped=bool(d.text)) for d in self.held([KEY])[KEY])


@pytest.fixture
def bank() -> Forgetful:
    made = Forgetful()
    made.settle(MODEL, {KEY: DRAWS})
    return made


def test_answers_are_those_of_the_parser_in_draw_order(bank: Forgetful) -> None:
    assert Reader(bank, NUMBER).read({KEY: DRAWS}).answers == {KEY: ('"4"', None, None, '"5"')}


def test_what_was_read_once_can_be_read_without_the_texts(bank: Forgetful) -> None:
    first = Reader(bank, NUMBER).read({KEY: DRAWS})
    assert Reader(bank, NUMBER).read({KEY: bank.texts_gone()}) == first


def test_another_parser_cannot_read_what_is_gone_and_says_what_to_do(bank: Forgetful) -> None:
    Reader(bank, NUMBER).read({KEY: DRAWS})
    reading = Reader(bank, TextParser()).read({KEY: bank.texts_gone()})
    assert KEY not in reading.answers
    assert "another seed" in reading.unreadable[KEY]


def test_a_stage_that_needs_texts_does_not_take_answers_for_them(bank: Forgetful) -> None:
    Reader(bank, NUMBER).read({KEY: DRAWS})
    reading = Reader(bank, NUMBER, texts_needed=True).read({KEY: bank.texts_gone()})
    assert "verifier" in reading.unreadable[KEY]


def test_a_bank_that_keeps_no_answers_is_read_all_the_same() -> None:
    class Plain:
        held = settle = None

    assert not isinstance(Plain(), AnswerBank)
    assert Reader(Plain(), NUMBER).read({KEY: DRAWS}).answers[KEY][0] == '"4"'  # type: ignore[arg-type]


def test_parsers_that_differ_in_anything_do_not_share_answers() -> None:
    specs = (NUMBER, TextParser(), IdsParser(kind="ids"), IdsParser(kind="ids", prefix="@"))
    assert len({parser_key(spec) for spec in specs}) == len(specs)
    assert parser_key(TextParser()) == parser_key(TextParser(kind="text"))
