"""What the embedded verifier is worth: picking whole answers, pruning partial ones, and meaning what its scores say."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import torch
from transformers import LlamaForSequenceClassification

from env.embedded.curves import PARSERS, stage_inputs
from env.embedded.ledger import worked_solution
from env.embedded.sampling import Sampler
from env.embedded.verifier import prefix_scores, shared_start
from env.embedded.vocabulary import STAGES
from env.tasks.example import Example

_MOST_SAMPLES = 16
_JUST = 3
"""A partial answer went wrong just now if its first wrong token is among its last so many."""

_BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


@dataclass(frozen=True)
class BestOfN:
    """One model on one stage, its answers picked by the verifier."""

    stage: str
    model: str
    order: float
    """Share of (right, wrong) pairs of answers to one prompt in which the right one scores higher."""

    partial_order: float
    """The same of partial answers of one length, one of them still right."""

    just_wrong_order: float
    """The same where the other went wrong within the last `_JUST` tokens."""

    accuracy: dict[int, float]
    """By number of samples: the answer with the highest score is right."""

    weighted: dict[int, float]
    """By number of samples: the answer with the highest sum of scores is right."""


@dataclass(frozen=True)
class Reliability:
    """Answers to one stage's prompts, of all models, whose scores fall between two bounds."""

    stage: str
    low: float
    high: float
    answers: int
    score: float
    right: float
    """Mean score, and share of right answers."""


@dataclass(frozen=True)
class _Judged:
    """One sampled answer with the verifier's scores."""

    answer: object
    words: tuple[str, ...]
    scores: tuple[float, ...]
    """After each word, the last after the end token."""


def measure_best_of_n(
    samplers: Mapping[str, Sampler], verifier: Path, examples: Sequence[Example], temperature: float
) -> tuple[list[BestOfN], list[Reliability]]:
    """Measure the verifier in a checkpoint folder on every model's answers to every stage, with gold inputs."""
    model = LlamaForSequenceClassification.from_pretrained(verifier, dtype=torch.float32).eval()
    measured, reliability = list[BestOfN](), list[Reliability]()
    for stage in STAGES:
        users, gold = zip(*(stage_inputs(stage, example) for example in examples), strict=True)
        targets = [_target(stage, example) for example in examples]
        outcomes = list[tuple[float, bool]]()
        for name, sampler in samplers.items():
            drawn = sampler.sample(stage, users, _MOST_SAMPLES, temperature)
            rows = [
                _judged(model, stage, user, [one.text for one in row]) for user, row in zip(users, drawn, strict=True)
            ]
            measured.append(_best_of_n(stage, name, rows, gold, targets))
            pairs = zip(rows, gold, strict=True)
            outcomes += [(one.scores[-1], one.answer == wanted) for row, wanted in pairs for one in row]
        reliability += _reliability(stage, outcomes)
    return measured, reliability


def best_of_n_report(measured: Sequence[BestOfN], reliability: Sequence[Reliability]) -> str:
    """Markdown, then JSON."""
    sizes = list(measured[0].accuracy)
    heads = ["order", "partial", "just wrong"]
    heads += [f"n={size}" for size in sizes] + [f"weighted n={size}" for size in sizes[1:]]
    lines = ["| stage | model | " + " | ".join(heads) + " |", "|---" * (2 + len(heads)) + "|"]
    for one in measured:
        values = [one.order, one.partial_order, one.just_wrong_order]
        values += [*one.accuracy.values(), *list(one.weighted.values())[1:]]
        lines.append(f"| {one.stage} | {one.model} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    lines += ["", "| stage | scores | answers | mean score | share right |", "|---|---|---|---|---|"]
    for bin_ in reliability:
        cells = [bin_.stage, f"{bin_.low:.1f} to {bin_.high:.1f}", str(bin_.answers)]
        lines.append("| " + " | ".join([*cells, f"{bin_.score:.3f}", f"{bin_.right:.3f}"]) + " |")
    return "\n".join(lines) + "\n\n" + json.dumps([vars(one) for one in (*measured, *reliability)])


def partial_pairs(
    gold: Sequence[str], rows: Sequence[tuple[Sequence[str], Sequence[float]]]
) -> list[tuple[float, float, int]]:
    """Pairs of partial answers to one prompt, of one length, one still right and one not.

    Args:
        gold: The words of the right answer.
        rows: Words of each sampled answer, and its score after each word.

    Returns:
        Score of the right one, score of the wrong one, and how many words ago that went wrong, from 1.
    """
    right, wrong = dict[int, float](), dict[int, dict[tuple[str, ...], tuple[float, int]]]()
    for words, scores in rows:
        same = shared_start(words, gold)
        for length, score in enumerate(scores[: len(words)], 1):
            if length <= same:
                right[length] = score
            else:
                wrong.setdefault(length, {})[tuple(words[:length])] = (score, length - same)
    return [
        (right[length], score, ago)
        for length, scored in wrong.items()
        if length in right
        for score, ago in scored.values()
    ]


def _target(stage: str, example: Example) -> str:
    """The text that answers a stage rightly."""
    relevant: list[int] = example.stage_gold["retrieve"]  # type: ignore[assignment]
    if stage == "retrieve":
        count = len(example.fields["story"])  # type: ignore[arg-type]
        return " ".join(f"{'#' if number in relevant else 'x'}{number}" for number in range(1, count + 1))
    ledger = str(example.stage_gold["read"])
    return ledger if stage == "read" else worked_solution(ledger)


def _judged(model: LlamaForSequenceClassification, stage: str, user: str, answers: Sequence[str]) -> list[_Judged]:
    scored = prefix_scores(model, stage, user, answers)
    return [
        _Judged(PARSERS[stage](answer), tuple(answer.split()), tuple(scores))
        for answer, scores in zip(answers, scored, strict=True)
    ]


def _best_of_n(
    stage: str, model: str, rows: Sequence[Sequence[_Judged]], gold: Sequence[object], targets: Sequence[str]
) -> BestOfN:
    sizes = [2**power for power in range(_MOST_SAMPLES.bit_length())]
    best, weighted = defaultdict[int, list[bool]](list), defaultdict[int, list[bool]](list)
    whole, partial, just = list[float](), list[float](), list[float]()
    for row, wanted, target in zip(rows, gold, targets, strict=True):
        right = [one.scores[-1] for one in row if one.answer == wanted]
        wrong = [one.scores[-1] for one in row if one.answer != wanted]
        whole += [_higher(high, low) for high in right for low in wrong]
        for high, low, ago in partial_pairs(target.split(), [(one.words, one.scores) for one in row]):
            partial.append(_higher(high, low))
            if ago <= _JUST:
                just.append(partial[-1])
        for size in sizes:
            for start in range(0, len(row), size):
                chosen = row[start : start + size]
                best[size].append(max(chosen, key=lambda one: one.scores[-1]).answer == wanted)
                weighted[size].append(_heaviest(chosen) == wanted)
    return BestOfN(
        stage=stage,
        model=model,
        order=fmean(whole or [0.5]),
        partial_order=fmean(partial or [0.5]),
        just_wrong_order=fmean(just or [0.5]),
        accuracy={size: fmean(hits) for size, hits in best.items()},
        weighted={size: fmean(hits) for size, hits in weighted.items()},
    )


def _higher(high: float, low: float) -> float:
    return 1.0 if high > low else 0.5 if high == low else 0.0


def _heaviest(row: Sequence[_Judged]) -> object:
    totals = dict[object, float]()
    for one in row:
        if one.answer is not None:
            totals[one.answer] = totals.get(one.answer, 0.0) + one.scores[-1]
    return max(totals, key=lambda answer: totals[answer], default=None)


def _reliability(stage: str, outcomes: Sequence[tuple[float, bool]]) -> list[Reliability]:
    found = list[Reliability]()
    for low, high in pairwise(_BINS):
        inside = [one for one in outcomes if low <= one[0] < high or one[0] == high == _BINS[-1]]
        if inside:
            score, right = fmean(score for score, _ in inside), fmean(hit for _, hit in inside)
            found.append(Reliability(stage, low, high, len(inside), score, right))
    return found
