"""How much best-of-n gains when the embedded verifier picks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from transformers import LlamaForSequenceClassification

from env.embedded.checkpoints import VERIFIER_NAME, checkpoint_path
from env.embedded.curves import PARSERS, stage_inputs
from env.embedded.sampling import Sampler
from env.embedded.verifier import score_answers
from env.embedded.vocabulary import STAGES
from env.tasks.example import Example

_MOST_SAMPLES = 16


@dataclass(frozen=True)
class BestOfN:
    """One model on one stage, its answers picked by the verifier."""

    stage: str
    model: str
    order: float
    """Share of (right, wrong) pairs of answers to one prompt in which the right one scores higher."""

    accuracy: dict[int, float]
    """By number of samples: the answer with the highest score is right."""

    weighted: dict[int, float]
    """By number of samples: the answer with the highest sum of scores is right."""


def measure_best_of_n(
    samplers: Mapping[str, Sampler], examples: Sequence[Example], temperature: float
) -> list[BestOfN]:
    """Measure every model on every stage with gold inputs."""
    verifier = LlamaForSequenceClassification.from_pretrained(checkpoint_path(VERIFIER_NAME), dtype=torch.float32)
    verifier.eval()
    measured = list[BestOfN]()
    for stage in STAGES:
        users, gold = zip(*(stage_inputs(stage, example) for example in examples), strict=True)
        for name, sampler in samplers.items():
            drawn = sampler.sample(stage, users, _MOST_SAMPLES, temperature)
            answers = [[PARSERS[stage](one.text) for one in row] for row in drawn]
            scores = [
                score_answers(verifier, stage, user, [one.text for one in row])
                for user, row in zip(users, drawn, strict=True)
            ]
            measured.append(_best_of_n(stage, name, answers, scores, gold))
    return measured


def best_of_n_report(measured: Sequence[BestOfN]) -> str:
    """Markdown, then JSON."""
    sizes = list(measured[0].accuracy)
    heads = [f"n={size}" for size in sizes] + [f"weighted n={size}" for size in sizes[1:]]
    lines = ["| stage | model | order | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    for one in measured:
        values = [one.order, *one.accuracy.values(), *list(one.weighted.values())[1:]]
        lines.append(f"| {one.stage} | {one.model} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines) + "\n\n" + json.dumps([vars(one) for one in measured])


def _best_of_n(
    stage: str,
    model: str,
    answers: Sequence[Sequence[object]],
    scores: Sequence[Sequence[float]],
    gold: Sequence[object],
) -> BestOfN:
    sizes = [2**power for power in range(_MOST_SAMPLES.bit_length())]
    best = {size: list[bool]() for size in sizes}
    weighted = {size: list[bool]() for size in sizes}
    ordered = list[float]()
    for row, values, wanted in zip(answers, scores, gold, strict=True):
        right = [value for value, answer in zip(values, row, strict=True) if answer == wanted]
        wrong = [value for value, answer in zip(values, row, strict=True) if answer != wanted]
        ordered += [(high > low) + 0.5 * (high == low) for high in right for low in wrong]
        for size in sizes:
            for start in range(0, len(row), size):
                chosen, judged = row[start : start + size], values[start : start + size]
                best[size].append(chosen[judged.index(max(judged))] == wanted)
                weighted[size].append(_heaviest(chosen, judged) == wanted)
    return BestOfN(
        stage=stage,
        model=model,
        order=fmean(ordered) if ordered else 0.5,
        accuracy={size: fmean(hits) for size, hits in best.items()},
        weighted={size: fmean(hits) for size, hits in weighted.items()},
    )


def _heaviest(answers: Sequence[object], scores: Sequence[float]) -> object:
    totals = dict[object, float]()
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + score
    return max(totals, key=lambda answer: totals[answer], default=None)
