"""Keys decide what is drawn again: those of older archives must stay as they are."""

from __future__ import annotations

from dataclasses import replace

from env.backends import Message, ModelIdentity, Sampling
from env.bank import draw_key, score_key

MODEL = ModelIdentity("s", "r")
MESSAGES = (Message("system", "solve"), Message("user", "1 2 + 3 4"))
SAMPLING = Sampling(1.5, 0.9, 64, ("\n",), 7)


def test_keys_are_those_of_version_0_1() -> None:
    drawn = draw_key(MODEL, MESSAGES, SAMPLING)
    assert drawn == "4102c460afdbb1a4a19a5c2a0004fa5197aa855be3d5078e97f2970ace2f1f88"
    assert score_key(MODEL, MESSAGES) == "5a785752f1232815a54884c027b57b5c6df1723f59c16bf772c9345320ebb26a"


def test_kept_stop_strings_and_partial_candidates_have_keys_of_their_own() -> None:
    assert draw_key(MODEL, MESSAGES, replace(SAMPLING, include_stop=True)) != draw_key(MODEL, MESSAGES, SAMPLING)
    assert score_key(MODEL, MESSAGES, partial=True) != score_key(MODEL, MESSAGES)
