"""Trains the critic: judges, revises and fuses answers of the solve stage.

It starts as the small model `s`, which can solve, with one layer more, and always writes its own worked solution first.
A revision and a fusion end there. A judgement goes on and takes the attempt's final number away, so that a right one
leaves ``= 0 0``, and the verdict is read off: subtracting it can do already, while comparing two numbers is a new skill
that it hardly learned. The attempts it learns from are samples of the models, and mistakes made on the spot.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import torch

from env.embedded.architecture import new_critic, start_from
from env.embedded.corpus import GRADES, Lesson, solve_lesson
from env.embedded.corruption import corrupted
from env.embedded.ledger import two_digits, worked_solution
from env.embedded.prompts import MOST_FUSED, VERDICTS, fuse_prompt, judge_prompt, parse_number, revise_prompt
from env.embedded.sampling import Sampler
from env.embedded.training import Optimizers, Recipe, backward, generation_settings, save_checkpoint
from env.embedded.vocabulary import TOKEN_IDS

CRITIC_RECIPE = Recipe(
    steps=900,
    lessons={"judge": 20, "revise": 20, "fuse": 20, "solve": 8},
    loss_weights={"judge": 1.0, "revise": 1.0, "fuse": 1.0, "solve": 0.5},
    matrix_rate=0.008,
    other_rate=0.004,
)
START = "s"
SOURCES = ("xs", "s", "m")
TEMPERATURES = (1.0, 1.5)
_VERDICT_TOKENS = tuple(TOKEN_IDS[word] for word in VERDICTS)
_PROMPTS = 300
_DRAWS = 12
_OTHER_SYSTEM_SHARE = 0.1
"""Share of lessons under the system message ``solve``: the form of the user message must be enough."""


@dataclass(frozen=True)
class Attempts:
    """A solve lesson and answers to it."""

    lesson: Lesson
    answers: tuple[str, ...]

    @property
    def right(self) -> tuple[str, ...]:
        """Those that end in the right number."""
        return tuple(answer for answer in self.answers if is_right(self.lesson, answer))

    @property
    def wrong(self) -> tuple[str, ...]:
        """The others."""
        return tuple(answer for answer in self.answers if not is_right(self.lesson, answer))


def is_right(lesson: Lesson, answer: str) -> bool:
    """Whether an answer ends in the lesson's number."""
    return parse_number(answer) == parse_number(lesson.target)


def sample_attempts(weights: Path, seed: int, prompts: int = _PROMPTS) -> list[Attempts]:
    """Draw answers of `SOURCES` at `TEMPERATURES` to train-split stories."""
    rng = random.Random(f"critic attempts {seed}")
    found = list[Attempts]()
    for name, temperature in product(SOURCES, TEMPERATURES):
        lessons = [solve_lesson(rng, GRADES[-1]) for _ in range(prompts)]
        users = [lesson.user for lesson in lessons]
        drawn = Sampler(weights / name, seed).sample("solve", users, _DRAWS, temperature)
        found += [Attempts(lesson, tuple(one.text for one in row)) for lesson, row in zip(lessons, drawn, strict=True)]
    return found


def make_attempts(rng: random.Random) -> Attempts:
    """Answers to a fresh train-split story: a random share of them right, of the wrong ones some alike."""
    lesson = solve_lesson(rng, GRADES[-1])
    chance, answers = rng.uniform(0.1, 0.95), list[str]()
    for _ in range(MOST_FUSED):
        repeated = [answer for answer in answers if answer != lesson.target]
        if rng.random() < chance:
            answers.append(lesson.target)
        elif repeated and rng.random() < 0.3:
            answers.append(rng.choice(repeated))
        else:
            answers.append(corrupted(rng, lesson))
    return Attempts(lesson, tuple(answers))


def judge_lesson(rng: random.Random, attempts: Attempts) -> Lesson:
    """Solve, take the attempt's number away, and say whether nothing is left; without a number it is wrong at once."""
    lesson, attempt = attempts.lesson, _one(rng, attempts)
    number = parse_number(attempt)
    check = lesson.target if number is None else worked_solution(f"{lesson.user} - {two_digits(int(number))}")
    verdict = next(word for word, right in VERDICTS.items() if right == is_right(lesson, attempt))
    return Lesson("judge", judge_prompt(lesson.user, attempt), f"{check} {verdict}")


def revise_lesson(rng: random.Random, attempts: Attempts) -> Lesson:
    """Write the right solution with an attempt in sight."""
    lesson = attempts.lesson
    return Lesson("revise", revise_prompt(lesson.user, _one(rng, attempts)), lesson.target)


def fuse_lesson(rng: random.Random, attempts: Attempts) -> Lesson:
    """Write the right solution with several final numbers in sight."""
    lesson = attempts.lesson
    shown = rng.sample(attempts.answers, rng.randint(2, MOST_FUSED))
    return Lesson("fuse", fuse_prompt(lesson.user, shown), lesson.target)


def plain_lesson(rng: random.Random, attempts: Attempts) -> Lesson:
    """Write the right solution with nothing in sight."""
    return attempts.lesson


CRITIC_LESSONS: Mapping[str, Callable[[random.Random, Attempts], Lesson]] = {
    "judge": judge_lesson,
    "revise": revise_lesson,
    "fuse": fuse_lesson,
    "solve": plain_lesson,
}


def train_critic(weights: Path, recipe: Recipe = CRITIC_RECIPE, seed: int = 0) -> None:
    """Train the critic on answers of the models in ``weights``, starting from one of them."""
    torch.set_num_threads(1)
    started = time.process_time()
    model = new_critic(seed)
    start_from(model, weights / START)
    model.generation_config = generation_settings()
    pool = sample_attempts(weights, seed)
    rng = random.Random(f"critic training {seed}")
    optimizers = Optimizers(model, recipe)
    history, recent = list[dict[str, float]](), list[dict[str, float]]()
    for step in range(recipe.steps):
        recent.append(
            {
                task: backward(model, _lessons(rng, pool, task, count), recipe.loss_weights[task], _VERDICT_TOKENS)
                for task, count in recipe.lessons.items()
            }
        )
        optimizers.step(step)
        if (step + 1) % 50 == 0:
            spent = round(time.process_time() - started, 1)
            means = {task: round(fmean(one[task] for one in recent), 4) for task in recipe.lessons}
            history.append({"step": step + 1, "cpu_seconds": spent, **means})
            print("critic", json.dumps(history[-1]), flush=True)
            recent.clear()
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            save_checkpoint(model, weights / "critic", history)


def _lessons(rng: random.Random, pool: Sequence[Attempts], task: str, count: int) -> list[Lesson]:
    """Half from sampled attempts, half from made ones."""
    chosen = [rng.choice(pool) if number % 2 else make_attempts(rng) for number in range(count)]
    lessons = [CRITIC_LESSONS[task](rng, attempts) for attempts in chosen]
    return [
        Lesson("solve", lesson.user, lesson.target) if rng.random() < _OTHER_SYSTEM_SHARE else lesson
        for lesson in lessons
    ]


def _one(rng: random.Random, attempts: Attempts) -> str:
    """One attempt, as often right as wrong where there are both."""
    return rng.choice(rng.choice([kind for kind in (attempts.right, attempts.wrong) if kind]))
