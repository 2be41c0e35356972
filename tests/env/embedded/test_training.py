"""Training: lessons come from the train split only, the curriculum climbs by mastery, a round leaves a checkpoint."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from env.embedded.architecture import new_model
from env.embedded.corpus import GRADES, LESSONS, NO_LOSS, Lesson, batch
from env.embedded.ledger import worked_solution
from env.embedded.sampling import Sampler
from env.embedded.training import Curriculum, Recipe, backward, train_model
from env.embedded.vocabulary import TOKEN_IDS, UNKNOWN, encode

TINY = Recipe(steps=3, lessons={"retrieve": 2, "read": 2, "solve": 2}, warmup=1)


@pytest.mark.parametrize("stage", list(LESSONS))
def test_lessons_use_known_words_and_stay_short(stage: str) -> None:
    rng = random.Random(0)
    for _ in range(100):
        lesson = LESSONS[stage](rng, GRADES[-1])
        tokens = encode(f"{lesson.user} {lesson.target}")
        assert TOKEN_IDS[UNKNOWN] not in tokens
        assert len(tokens) <= 130


def test_the_retrieve_target_marks_every_sentence_in_turn() -> None:
    lesson = LESSONS["retrieve"](random.Random(0), GRADES[-1])
    assert [int(mark[1:]) for mark in lesson.target.split()] == list(range(1, lesson.user.count("#") + 1))


def test_the_solve_target_is_the_worked_solution() -> None:
    lesson = LESSONS["solve"](random.Random(0), GRADES[-1])
    assert lesson.target == worked_solution(lesson.user)


def test_loss_is_on_the_target_and_the_end_token_only() -> None:
    inputs, labels = batch([Lesson("solve", "4 0", "= 4 0"), Lesson("solve", "4 0 + 1 1", "= 5 1")])
    assert inputs.shape == labels.shape
    assert (labels != NO_LOSS).sum(1).tolist() == [4, 4]


def test_gradients_do_not_depend_on_how_lessons_are_padded() -> None:
    torch.set_num_threads(1)
    rng = random.Random(1)
    lessons = [LESSONS["solve"](rng, GRADES[-1]) for _ in range(6)]
    losses = [backward(new_model("xs", seed=0), order) for order in (lessons, lessons[::-1])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_stage_climbs_once_its_loss_is_low() -> None:
    curriculum = Curriculum()
    assert curriculum.grade("retrieve", 0.0) == GRADES[0]
    for _ in range(25):
        curriculum.note("retrieve", 0.01)
    assert curriculum.grade("retrieve", 0.0) == GRADES[1]
    assert curriculum.grade("retrieve", 0.0) == GRADES[1]


def test_every_stage_ends_at_the_last_grade() -> None:
    curriculum = Curriculum()
    assert {curriculum.grade(stage, 0.99) for stage in LESSONS} == {GRADES[-1]}


def test_retrieve_trains_alone_at_first() -> None:
    curriculum = Curriculum()
    assert curriculum.open_stages(0.0) == ("retrieve",)
    assert curriculum.open_stages(0.5) == tuple(LESSONS)


def test_training_leaves_a_checkpoint_that_samples(tmp_path: Path) -> None:
    train_model("xs", tmp_path / "xs", TINY)
    assert json.loads((tmp_path / "xs" / "training.json").read_text()) == []
    assert len(Sampler(tmp_path / "xs").sample("solve", ["4 0"], 3, most_tokens=5)[0]) == 3


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    for run in ("first", "second"):
        train_model("xs", tmp_path / run, TINY, seed=7)
    first, second = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("first", "second"))
    assert first == second
