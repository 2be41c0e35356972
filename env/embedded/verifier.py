"""Trains the verifier: how likely is it that a candidate answer, or its prefix so far, is right?

Each prompt of the task has exactly one right answer, so every prefix of a sampled answer has a label for nothing. The
verifier learns them all: its logit at the end token judges the whole answer, its logit earlier a partial one, as beam
search and REBASE need.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import torch
from torch.nn import functional
from transformers import LlamaForSequenceClassification

from env.embedded.architecture import new_verifier
from env.embedded.corpus import GRADES, LESSONS, NO_LOSS
from env.embedded.sampling import Sampler
from env.embedded.training import Optimizers, Recipe, save_checkpoint
from env.embedded.vocabulary import EOS, PAD, TOKEN_IDS, encode, prompt_text

VERIFIER_RECIPE = Recipe(
    steps=2400, lessons={"retrieve": 16, "read": 24, "solve": 64}, matrix_rate=0.01, other_rate=0.005
)
SOURCES = ("s", "l")
"""Models whose answers the verifier learns from; it starts as the first of them."""

TEMPERATURES = (1.0, 1.5)
_PROMPTS_PER_STAGE = 1500
_DRAWS = 3


@dataclass(frozen=True)
class Candidate:
    """A sampled answer next to the right one."""

    stage: str
    user: str
    answer: str
    gold: str

    @property
    def is_right(self) -> bool:
        """Whether the whole answer is right."""
        return self.answer == self.gold


def sample_candidates(weights: Path, seed: int, prompts: int = _PROMPTS_PER_STAGE) -> list[Candidate]:
    """Draw answers of `SOURCES` at `TEMPERATURES` to train-split stories, right and wrong ones."""
    rng = random.Random(f"verifier candidates {seed}")
    found = list[Candidate]()
    for name, temperature in product(SOURCES, TEMPERATURES):
        sampler = Sampler(weights / name, seed)
        for stage, draw in LESSONS.items():
            lessons = [draw(rng, GRADES[-1]) for _ in range(prompts)]
            drawn = sampler.sample(stage, [lesson.user for lesson in lessons], _DRAWS, temperature)
            for lesson, row in zip(lessons, drawn, strict=True):
                answers = {one.text for one in row}
                found += [Candidate(stage, lesson.user, answer, lesson.target) for answer in sorted(answers)]
    return found


def verifier_batch(candidates: Sequence[Candidate]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and labels: 1 where the answer up to and including the token is right, 0 where it is not."""
    rows = list[tuple[list[int], list[int]]]()
    for candidate in candidates:
        prompt = encode(prompt_text(candidate.stage, candidate.user))
        answer, gold = encode(f"{candidate.answer} {EOS}"), encode(f"{candidate.gold} {EOS}")
        same = [answer[: end + 1] == gold[: end + 1] for end in range(len(answer))]
        rows.append((prompt + answer, [NO_LOSS] * len(prompt) + [int(right) for right in same]))
    longest = max(len(tokens) for tokens, _ in rows)
    inputs = torch.full((len(rows), longest), TOKEN_IDS[PAD])
    labels = torch.full((len(rows), longest), NO_LOSS)
    for row, (tokens, marks) in enumerate(rows):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, : len(marks)] = torch.tensor(marks)
    return inputs, labels


def train_verifier(weights: Path, recipe: Recipe = VERIFIER_RECIPE, seed: int = 0) -> None:
    """Train the verifier on answers of the models in ``weights``, starting from the model of its own size there."""
    torch.set_num_threads(1)
    started = time.process_time()
    model = new_verifier(seed)
    _start_from_language_model(model, weights / SOURCES[0])
    by_kind = dict[tuple[str, bool], list[Candidate]]()
    for candidate in sample_candidates(weights, seed):
        by_kind.setdefault((candidate.stage, candidate.is_right), []).append(candidate)
    rng = random.Random(f"verifier training {seed}")
    optimizers = Optimizers(model, recipe)
    history, recent = list[dict[str, float]](), list[float]()
    for step in range(recipe.steps):
        for stage in LESSONS:
            chosen = [
                candidate
                for right in (True, False)
                for candidate in rng.choices(by_kind[stage, right], k=recipe.lessons[stage] // 2)
            ]
            loss = prefix_loss(model, *verifier_batch(chosen))
            loss.backward()
            recent.append(loss.item())
        optimizers.step(step)
        if (step + 1) % 50 == 0:
            history.append(
                {
                    "step": step + 1,
                    "cpu_seconds": round(time.process_time() - started, 1),
                    **{stage: round(fmean(recent[i :: len(LESSONS)]), 4) for i, stage in enumerate(LESSONS)},
                }
            )
            print("verifier", json.dumps(history[-1]), flush=True)
            recent.clear()
        if (step + 1) % 200 == 0 or step + 1 == recipe.steps:
            save_checkpoint(model, weights / "verifier", history)


def prefix_loss(model: LlamaForSequenceClassification, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy in nats: the mean over prefixes plus that over whole answers."""
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    logits = model.score(hidden)[..., 0]
    wanted = labels != NO_LOSS
    ends = wanted & (inputs == TOKEN_IDS[EOS])
    return functional.binary_cross_entropy_with_logits(
        logits[wanted], labels[wanted].float()
    ) + functional.binary_cross_entropy_with_logits(logits[ends], labels[ends].float())


def score_answers(model: LlamaForSequenceClassification, stage: str, user: str, answers: Sequence[str]) -> list[float]:
    """Probability that each answer is right, as the verifier sees it."""
    inputs, _ = verifier_batch([Candidate(stage, user, answer, "") for answer in answers])
    with torch.inference_mode():
        chances: list[float] = model(input_ids=inputs).logits[:, 0].sigmoid().tolist()
    return chances


def _start_from_language_model(model: LlamaForSequenceClassification, folder: Path) -> None:
    from transformers import LlamaForCausalLM

    trained = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.load_state_dict(trained.model.state_dict())
    torch.nn.init.zeros_(model.score.weight)
