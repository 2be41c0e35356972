"""Wrong answers for judges to learn from: truly wrong, in the stage's words, and labelled word by word."""

from __future__ import annotations

import random
from statistics import fmean

import pytest

from env.embedded.corpus import GRADES, LESSONS, NO_LOSS, Lesson
from env.embedded.corruption import corrupted, noisy
from env.embedded.ledger import balances
from env.embedded.prompts import parse_number
from env.embedded.verifier import Candidate, labelled, make_candidates
from env.embedded.vocabulary import TOKEN_IDS, encode

SOLVE = Lesson("solve", "2 3 + 1 5 - 3 * 0 7", "2 3 ; + 1 5 8 3 ; - 3 * 0 7 2 1 7 1 ; = 1 7")


@pytest.mark.parametrize("stage", list(LESSONS))
def test_a_corrupted_answer_is_wrong_and_made_of_known_words(stage: str) -> None:
    rng = random.Random(0)
    for _ in range(200):
        lesson = LESSONS[stage](rng, GRADES[-1])
        answer = corrupted(rng, lesson)
        assert answer != lesson.target
        assert all(word in TOKEN_IDS for word in answer.split())


def test_some_wrong_solutions_work_on_correctly_from_their_mistake() -> None:
    rng, consistent = random.Random(0), 0
    for _ in range(300):
        answer = corrupted(rng, SOLVE).split(" ; ")
        if len(answer) != 4 or len(answer[2].split()) != 9 or not "".join(answer[1].split()[-2:]).isdigit():
            continue
        units, tens = answer[1].split()[-2:]
        wrong_balance = int(tens + units) != 38
        consistent += wrong_balance and parse_number(answer[-1]) == f"{(int(tens + units) - 21) % 100:02d}"
    assert consistent > 30


@pytest.mark.parametrize("stage", list(LESSONS))
def test_noise_keeps_the_form_and_none_changes_nothing(stage: str) -> None:
    rng = random.Random(0)
    for _ in range(100):
        lesson = LESSONS[stage](rng, GRADES[-1])
        assert noisy(rng, lesson, 0.0) == (lesson.target, lesson.target)
        answer, expected = noisy(rng, lesson, 0.3)
        assert len(answer.split()) == len(expected.split()) == len(lesson.target.split())


def test_noise_replaces_the_stated_share_of_digits() -> None:
    rng = random.Random(0)
    replaced = list[bool]()
    for _ in range(200):
        answer, expected = noisy(rng, SOLVE, 0.25)
        pairs = zip(answer.split(), expected.split(), strict=True)
        replaced += [wrote != right for wrote, right in pairs if right.isdigit()]
    assert fmean(replaced) == pytest.approx(0.25, abs=0.04)


def test_what_should_follow_a_wrong_balance_is_worked_out_from_it() -> None:
    rng = random.Random(0)
    for _ in range(100):
        answer, expected = noisy(rng, SOLVE, 0.3)
        wrote, right = answer.split(), expected.split()
        opening = int(wrote[0] + wrote[1])
        assert "".join(right[6:8][::-1]) == f"{(opening + 15) % 100:02d}"
        before = int(wrote[7] + wrote[6])
        assert "".join(right[16:18][::-1]) == f"{(before - 21) % 100:02d}"
    assert balances(SOLVE.user) == [23, 38, 17]


def test_labels_turn_wrong_at_the_first_wrong_token_and_stay_wrong() -> None:
    batch = labelled([Candidate("solve", "4 0", "= 4 1", gold="= 4 0")])
    assert batch.right[batch.right != NO_LOSS].tolist() == [1, 1, 0, 0]


def test_the_next_token_is_known_up_to_the_first_mistake_of_a_sample() -> None:
    batch = labelled([Candidate("solve", "4 0", "= 5 1", gold="= 4 0")])
    assert batch.following[batch.following != NO_LOSS].tolist() == encode("= 4")


def test_the_next_token_is_known_throughout_a_made_answer() -> None:
    batch = labelled([Candidate("solve", "4 0", "= 5 1", gold="= 4 0", expected="= 4 0")])
    assert batch.following[batch.following != NO_LOSS].tolist() == encode("= 4 0 </s>")


def test_a_quarter_of_the_made_candidates_is_right() -> None:
    made = make_candidates(random.Random(0), "solve", 200)
    assert 0.2 <= fmean(candidate.is_right for candidate in made) <= 0.35
