"""Training batches for the three stages, drawn from train-split stories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from env.embedded.ledger import DIFFICULTIES, Sentence, expression, make_story, worked_solution
from env.embedded.prompts import read_prompt, retrieve_prompt
from env.embedded.vocabulary import EOS, MOST_SENTENCES, PAD, TOKEN_IDS, encode, prompt_text

NO_LOSS = -100


@dataclass(frozen=True)
class Grade:
    """One step of the curriculum."""

    longest: int
    """Most sentences of an excerpt."""

    aliases: bool = True
    whole_share: float = 0.0
    """Share of whole stories; the rest are excerpts."""


GRADES = (
    Grade(longest=1, aliases=False),
    Grade(longest=1),
    *(Grade(longest=longest) for longest in (2, 3, 5, 8)),
    Grade(longest=MOST_SENTENCES, whole_share=0.6),
)
"""From "whose sentence is this?" to whole stories.

Given whole stories at once, the models stay for thousands of steps at guessing; one sentence teaches in a few hundred
steps what it means to be asked about somebody, and each grade then follows quickly.
"""
MASTERED = {"retrieve": 0.12, "read": 0.25}
"""Mean loss a target token, in nats, at which a stage moves up a grade. Solve starts at the last grade."""


@dataclass(frozen=True)
class Lesson:
    """One prompt of a stage and the text that should follow it."""

    stage: str
    user: str
    target: str


def retrieve_lesson(rng: random.Random, grade: Grade) -> Lesson:
    """Numbered sentences; each is kept (``#3``) or dropped (``x3``) in turn."""
    sentences, person = _excerpt(rng, grade)
    marks = (f"{'#' if person in s.effects else 'x'}{number}" for number, s in enumerate(sentences, 1))
    return Lesson("retrieve", retrieve_prompt([s.text for s in sentences], person), " ".join(marks))


def read_lesson(rng: random.Random, grade: Grade) -> Lesson:
    """Sentences as an imperfect retrieval passes them on: 0 to 4 distractors, now and then a relevant one missing."""
    sentences, person = _excerpt(rng, grade)
    relevant = [n for n, s in enumerate(sentences) if person in s.effects]
    distractors = [n for n, s in enumerate(sentences) if person not in s.effects]
    missing = rng.choices((0, 1, 2), (0.8, 0.15, 0.05))[0] if len(relevant) > 2 else 0
    kept = rng.sample(relevant, len(relevant) - missing)
    kept += rng.sample(distractors, min(len(distractors), rng.choices(range(5), (4, 2, 1, 1, 1))[0]))
    passed = [sentences[n] for n in sorted(kept)]
    return Lesson("read", read_prompt([s.text for s in passed], person), expression(passed, person))


def solve_lesson(rng: random.Random, grade: Grade) -> Lesson:
    """An expression and its worked solution; some start at ``0 0`` or wrap around 100, as wrong readings do."""
    sentences, person = _excerpt(rng, grade)
    ledger = expression(sentences, person)
    return Lesson("solve", ledger, worked_solution(ledger))


LESSONS = {"retrieve": retrieve_lesson, "read": read_lesson, "solve": solve_lesson}


def batch(lessons: Sequence[Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded token ids and labels, both ``(lessons, longest)``; labels outside targets are `NO_LOSS`."""
    rows = list[tuple[list[int], int]]()
    for lesson in lessons:
        prompt = encode(prompt_text(lesson.stage, lesson.user))
        rows.append((prompt + encode(f"{lesson.target} {EOS}"), len(prompt)))
    longest = max(len(tokens) for tokens, _ in rows)
    inputs = torch.full((len(rows), longest), TOKEN_IDS[PAD])
    labels = torch.full((len(rows), longest), NO_LOSS)
    for row, (tokens, start) in enumerate(rows):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return inputs, labels


def _excerpt(rng: random.Random, grade: Grade) -> tuple[Sequence[Sentence], str]:
    """Some sentences of a train-split story in order, or all of them, and a person to ask about."""
    level = rng.choice(tuple(DIFFICULTIES))
    difficulty = DIFFICULTIES[level]
    if not grade.aliases:
        difficulty = replace(difficulty, alias_share=0.0)
    story = make_story(rng, difficulty, level)
    while story.split != "train":
        story = make_story(rng, difficulty, level)
    if rng.random() < grade.whole_share:
        return story.sentences, story.person
    count = rng.randint(1, min(grade.longest, len(story.sentences)))
    chosen = [story.sentences[n] for n in sorted(rng.sample(range(len(story.sentences)), count))]
    named = sorted({person for sentence in chosen for person in sentence.effects})
    return chosen, rng.choice(named) if rng.random() < 0.5 else story.person
