"""Trains the verifier: how likely is it that a candidate answer, or its prefix so far, is right?

Each prompt of the task has exactly one right answer, so every prefix of a wrong answer has a label for nothing. The
verifier learns them all: its logit at the end token judges the whole answer, its logit earlier a partial one, as beam
search and REBASE need.

It is the small language model, frozen, with a comparison built on top (`comparison`): the first of the judging layers
tells how far each token is from what the language model expected there, the next one gathers the worst. What these
numbers mean is trained, the tokens' part with a loss of its own on answers with many known mistakes.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from env.embedded.architecture import JUDGING_LAYERS, SIZES, new_verifier
from env.embedded.comparison import build_comparison
from env.embedded.corpus import GRADES, LESSONS, NO_LOSS
from env.embedded.corruption import corrupted, noisy
from env.embedded.sampling import Sampler
from env.embedded.training import Optimizers, Recipe, save_checkpoint
from env.embedded.vocabulary import EOS, PAD, TOKEN_IDS, encode, prompt_text

VERIFIER_RECIPE = Recipe(
    steps=1500,
    lessons={"retrieve": 16, "read": 16, "solve": 16},
    matrix_rate=0.008,
    other_rate=0.01,
    kept_rate=0.003,
    weight_decay=0.0,
    decay_share=0.5,
)
"""Lessons are candidates here: half sampled from models, as many right as wrong, and half made on the spot."""

START = "s"
"""The language model below the judging layers."""

SOURCES = ("xs", "s", "m", "l")
TEMPERATURES = (1.0, 1.5)
"""Whose answers the verifier learns from, and how they are sampled."""

_PROMPTS_PER_STAGE = 700
_DRAWS = 3
_NOISE = (0.05, 0.35)


@dataclass(frozen=True)
class Candidate:
    """An answer next to the right one."""

    stage: str
    user: str
    answer: str
    gold: str
    expected: str | None = None
    """The right words in the places of the answer's; None where that is known up to its first mistake only."""

    @property
    def is_right(self) -> bool:
        """Whether the whole answer is right."""
        return self.answer == self.gold


@dataclass(frozen=True)
class Labelled:
    """Candidates as tensors, each ``(candidates, longest)``, padded on the right; no label is `NO_LOSS`."""

    inputs: torch.Tensor
    right: torch.Tensor
    """1 where the answer up to and including the token is right, 0 where it is not."""

    following: torch.Tensor
    """The token that should follow, where that is known: in answers from models, up to their first mistake."""


Pool = Mapping[tuple[str, bool], Sequence[Candidate]]
"""Sampled candidates by stage and whether they are right."""


def sample_candidates(weights: Path, seed: int, prompts: int = _PROMPTS_PER_STAGE) -> Pool:
    """Draw answers of `SOURCES` at `TEMPERATURES` to train-split stories, right and wrong ones."""
    rng = random.Random(f"verifier candidates {seed}")
    found: dict[tuple[str, bool], list[Candidate]] = {pair: [] for pair in product(LESSONS, (True, False))}
    for name, temperature in product(SOURCES, TEMPERATURES):
        sampler = Sampler(weights / name, seed)
        for stage, draw in LESSONS.items():
            lessons = [draw(rng, GRADES[-1]) for _ in range(prompts)]
            drawn = sampler.sample(stage, [lesson.user for lesson in lessons], _DRAWS, temperature)
            for lesson, row in zip(lessons, drawn, strict=True):
                for answer in sorted({one.text for one in row}):
                    candidate = Candidate(stage, lesson.user, answer, lesson.target)
                    found[stage, candidate.is_right].append(candidate)
    return found


def make_candidates(rng: random.Random, stage: str, count: int) -> list[Candidate]:
    """Answers to fresh train-split stories: of four one is right, one has a mistake, and two have many."""
    made = list[Candidate]()
    for number in range(count):
        lesson = LESSONS[stage](rng, GRADES[-1])
        if number % 4 > 1:
            answer, expected = noisy(rng, lesson, rng.uniform(*_NOISE))
            made.append(Candidate(stage, lesson.user, answer, lesson.target, expected))
        else:
            answer = corrupted(rng, lesson) if number % 4 else lesson.target
            made.append(Candidate(stage, lesson.user, answer, lesson.target))
    return made


def labelled(candidates: Sequence[Candidate]) -> Labelled:
    """Tokens and labels of candidates."""
    rows = list[tuple[list[int], list[int], list[int]]]()
    for candidate in candidates:
        prompt = encode(prompt_text(candidate.stage, candidate.user))
        answer, gold = encode(f"{candidate.answer} {EOS}"), encode(f"{candidate.gold} {EOS}")
        same = shared_start(answer, gold)
        right = [NO_LOSS] * len(prompt) + [1] * same + [0] * (len(answer) - same)
        expected = gold[: same + 1] if candidate.expected is None else encode(f"{candidate.expected} {EOS}")
        rows.append((prompt + answer, right, [NO_LOSS] * (len(prompt) - 1) + expected))
    longest = max(len(tokens) for tokens, _, _ in rows)
    padded = [torch.full((len(rows), longest), padding) for padding in (TOKEN_IDS[PAD], NO_LOSS, NO_LOSS)]
    for number, row in enumerate(rows):
        for tensor, values in zip(padded, row, strict=True):
            tensor[number, : len(values)] = torch.tensor(values)
    return Labelled(*padded)


class Pupil(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """The verifier, and a head that only its training needs: is this token the one that should follow?"""

    def __init__(self, verifier: LlamaForSequenceClassification) -> None:
        super().__init__()
        self.verifier = verifier
        self.score_token = torch.nn.Linear(verifier.config.hidden_size, 1)
        torch.nn.init.zeros_(self.score_token.weight)

    def losses(self, batch: Labelled) -> dict[str, torch.Tensor]:
        """Mean losses in nats.

        ``prefix`` and ``answer`` are the binary cross-entropies of the verifier's logit at every token and at the end
        token. ``token`` is that of the head after the first judging layer, at tokens of which it is known what should
        stand there, wrong and right ones with equal weight.
        """
        model = self.verifier
        states = model.model(input_ids=batch.inputs, use_cache=False, output_hidden_states=True)
        marked = batch.right != NO_LOSS
        logits, right = model.score(states.last_hidden_state[marked])[:, 0], batch.right[marked].float()
        ends = batch.inputs[marked] == TOKEN_IDS[EOS]
        expected = batch.following != NO_LOSS
        known = functional.pad(expected[:, :-1], (1, 0)) & marked
        judged = self.score_token(model.model.norm(states.hidden_states[-JUDGING_LAYERS][known]))[:, 0]
        fits = batch.inputs[known] == functional.pad(batch.following[:, :-1], (1, 0))[known]
        return {
            "prefix": functional.binary_cross_entropy_with_logits(logits, right),
            "answer": functional.binary_cross_entropy_with_logits(logits[ends], right[ends]),
            "token": (_mean(functional.softplus(-judged[fits])) + _mean(functional.softplus(judged[~fits]))) / 2,
        }


def _mean(values: torch.Tensor) -> torch.Tensor:
    """The mean, 0 of none: a small batch may hold no wrong answer."""
    return values.sum() / max(1, len(values))


def shared_start(first: Sequence[object], second: Sequence[object]) -> int:
    """How many items at the start of two sequences are the same."""
    shortest = min(len(first), len(second))
    return next((index for index in range(shortest) if first[index] != second[index]), shortest)


def train_verifier(weights: Path, recipe: Recipe = VERIFIER_RECIPE, seed: int = 0) -> None:
    """Train the verifier on answers of the models in ``weights``, starting from one of them."""
    torch.set_num_threads(1)
    started = time.process_time()
    model = new_verifier(seed)
    pool = sample_candidates(weights, seed)
    some = labelled([one for kind in pool.values() for one in kind[:100]])
    below = LlamaForCausalLM.from_pretrained(weights / START, dtype=torch.float32)
    build_comparison(model, below, some.inputs, some.right != NO_LOSS)
    _freeze(model)
    pupil = Pupil(model)
    rng = random.Random(f"verifier training {seed}")
    optimizers = Optimizers(pupil, recipe, kept_layers=SIZES[START].layers + 1)
    history, recent = list[dict[str, float]](), list[dict[str, float]]()
    for step in range(recipe.steps):
        step_losses = dict[str, float]()
        for stage in LESSONS:
            for kind, loss in _backward(pupil, _lesson(rng, pool, stage, recipe.lessons[stage])).items():
                step_losses[f"{stage}_{kind}"] = loss
        recent.append(step_losses)
        optimizers.step(step)
        if (step + 1) % 50 == 0:
            spent = round(time.process_time() - started, 1)
            means = {name: round(fmean(one[name] for one in recent), 4) for name in step_losses}
            history.append({"step": step + 1, "cpu_seconds": spent, **means})
            print("verifier", json.dumps(history[-1]), flush=True)
            recent.clear()
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            save_checkpoint(model, weights / "verifier", history)


def _freeze(model: LlamaForSequenceClassification) -> None:
    """Leave to the training how the first judging layer multiplies, all of the second one, the last norm and the head.

    With everything free, at rates of 0.002 to 0.01, the training lost the comparison in its first steps.
    """
    depth = SIZES[START].layers
    model.model.embed_tokens.requires_grad_(False)
    for layer in model.model.layers[:depth]:
        layer.requires_grad_(False)
    comparing = model.model.layers[depth]
    for part in (comparing.self_attn, comparing.input_layernorm, comparing.post_attention_layernorm):
        part.requires_grad_(False)


def _lesson(rng: random.Random, pool: Pool, stage: str, count: int) -> list[Candidate]:
    sampled = [one for right in (True, False) for one in rng.choices(pool[stage, right], k=count // 4)]
    return sampled + make_candidates(rng, stage, count - len(sampled))


def _backward(pupil: Pupil, candidates: Sequence[Candidate]) -> dict[str, float]:
    """Add the gradients of a lesson; returns its losses. Long and short candidates go apart, which saves padding."""
    ordered = sorted(candidates, key=lambda one: len(one.user) + len(one.answer))
    half = len(ordered) // 2
    total = dict[str, float]()
    for part in (ordered[:half], ordered[half:]):
        share = len(part) / len(ordered)
        losses = pupil.losses(labelled(part))
        (share * torch.stack(list(losses.values())).sum()).backward()
        for kind, loss in losses.items():
            total[kind] = total.get(kind, 0.0) + share * loss.item()
    return total


def prefix_scores(
    model: LlamaForSequenceClassification, stage: str, user: str, answers: Sequence[str]
) -> list[list[float]]:
    """Probability, after each token of each answer, that the answer is right so far; the last is the whole answer's."""
    batch = labelled([Candidate(stage, user, answer, "") for answer in answers])
    with torch.inference_mode():
        hidden = model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state
        chances = model.score(hidden)[..., 0].sigmoid()
    return [row[marked].tolist() for row, marked in zip(chances, batch.right != NO_LOSS, strict=True)]


def score_answers(model: LlamaForSequenceClassification, stage: str, user: str, answers: Sequence[str]) -> list[float]:
    """Probability that each answer is right, as the verifier sees it."""
    return [scores[-1] for scores in prefix_scores(model, stage, user, answers)]
