"""Trains one language model: Muon for matrices, AdamW for embeddings and norms, loss on targets only."""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from torch.nn import functional
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel

from env.embedded.architecture import LONGEST_SEQUENCE, new_model
from env.embedded.corpus import GRADES, LESSONS, MASTERED, NO_LOSS, Grade, Lesson, batch
from env.embedded.vocabulary import BOS, EOS, PAD, TOKEN_IDS, save_tokenizer

_SAVE_EVERY = 200
_RETRIEVE_ALONE = 3
"""Grade that retrieve reaches before the other stages join."""

_LATEST_OTHERS = 0.4
"""Share of the training after which they join in any case."""

_LATEST_GROWN = 0.6
"""Share of the training after which a stage that has not mastered the grades before moves to the last grade."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int
    lessons: Mapping[str, int] = field(default_factory=lambda: {"retrieve": 56, "read": 48, "solve": 24})
    """Lessons of each stage in a step."""

    loss_weights: Mapping[str, float] = field(default_factory=lambda: {"retrieve": 2.0, "read": 1.0, "solve": 1.0})
    matrix_rate: float = 0.01
    other_rate: float = 0.01
    kept_rate: float = 0.0
    """Rate of the matrices in layers that need not change much."""

    weight_decay: float = 0.1
    """Of the matrices."""

    warmup: int = 30
    decay_share: float = 0.4
    """Share of the steps, at the end, over which the rates fall linearly to zero."""

    def rate_factor(self, step: int) -> float:
        """What to multiply both rates with at a step."""
        decay_steps = max(1.0, self.steps * self.decay_share)
        return min(1.0, (step + 1) / self.warmup, (self.steps - step) / decay_steps)


RECIPES = {
    "xs": Recipe(steps=5000, lessons={"retrieve": 32, "read": 32, "solve": 48}),
    "s": Recipe(steps=2400),
    "m": Recipe(steps=1600),
    "l": Recipe(steps=1500),
}


class Optimizers:
    """Muon for the matrices between embeddings and head, AdamW for the rest, on one schedule."""

    def __init__(self, model: torch.nn.Module, recipe: Recipe, kept_layers: int = 0) -> None:
        matrices, kept, others = (list[torch.nn.Parameter]() for _ in range(3))
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            inner = parameter.ndim == 2 and not any(part in name for part in ("embed_tokens", "lm_head", "score"))
            slow = inner and int(name.split("layers.")[1].split(".")[0]) < kept_layers
            (kept if slow else matrices if inner else others).append(parameter)
        self._recipe = recipe
        self._parts: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay), recipe.matrix_rate),
            (torch.optim.AdamW(others, lr=recipe.other_rate, betas=(0.9, 0.95), weight_decay=0.0), recipe.other_rate),
        ]
        if kept:
            muon = torch.optim.Muon(kept, lr=recipe.kept_rate, weight_decay=recipe.weight_decay)
            self._parts.append((muon, recipe.kept_rate))

    def step(self, step: int) -> None:
        """Apply and clear the gradients with the rates of this step."""
        for optimizer, rate in self._parts:
            for group in optimizer.param_groups:
                group["lr"] = rate * self._recipe.rate_factor(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def save_checkpoint(model: PreTrainedModel, folder: Path, history: Iterable[dict[str, float]] = ()) -> None:
    """Write weights, configuration, tokenizer and the training log as one Hugging Face checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    (folder / "training.json").write_text(json.dumps(list(history), indent=1) + "\n")


def generation_settings() -> GenerationConfig:
    """How to sample where a caller says nothing else."""
    return GenerationConfig(
        bos_token_id=TOKEN_IDS[BOS], eos_token_id=TOKEN_IDS[EOS], pad_token_id=TOKEN_IDS[PAD],
        do_sample=True, temperature=1.0, max_length=LONGEST_SEQUENCE,
    )  # fmt: skip


def train_model(name: str, folder: Path, recipe: Recipe, seed: int = 0) -> None:
    """Train a language model from scratch, and leave its checkpoint in ``folder``.

    Args:
        name: Key of `architecture.SIZES`.
        folder: Where the checkpoint goes; rewritten every `_SAVE_EVERY` steps.
        recipe: Steps, lessons and rates.
        seed: Decides initial weights and data.
    """
    torch.set_num_threads(1)
    model = new_model(name, seed)
    model.generation_config = generation_settings()
    rng = random.Random(f"ledger training {name} {seed}")
    optimizers, curriculum = Optimizers(model, recipe), Curriculum()
    history = list[dict[str, float]]()
    started = time.process_time()
    for step in range(recipe.steps):
        for stage in curriculum.open_stages(step / recipe.steps):
            grade = curriculum.grade(stage, step / recipe.steps)
            count = round(recipe.lessons[stage] * max(1.0, min(2.0, 6 / grade.longest)))
            lessons = [LESSONS[stage](rng, grade) for _ in range(count)]
            curriculum.note(stage, backward(model, lessons, recipe.loss_weights[stage]))
        optimizers.step(step)
        if (step + 1) % 50 == 0:
            spent = round(time.process_time() - started, 1)
            history.append({"step": step + 1, "cpu_seconds": spent, **curriculum.state()})
            print(name, json.dumps(history[-1]), flush=True)
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == recipe.steps:
            save_checkpoint(model, folder, history)


class Curriculum:
    """Moves each stage up a grade once its running loss is low, and in any case with time."""

    def __init__(self) -> None:
        self._reached = dict.fromkeys(LESSONS, 0) | {"solve": len(GRADES) - 1}
        self._recent = {stage: deque[float](maxlen=25) for stage in LESSONS}

    def grade(self, stage: str, progress: float) -> Grade:
        """The grade of this stage's next lessons; ``progress`` runs from 0 to 1 over the training."""
        last = len(GRADES) - 1
        recent = self._recent[stage]
        reached = self._reached[stage] if progress < _LATEST_GROWN else last
        if reached < last and len(recent) == recent.maxlen and fmean(recent) < MASTERED[stage]:
            reached += 1
        if reached != self._reached[stage]:
            self._reached[stage] = reached
            recent.clear()
        return GRADES[reached]

    def open_stages(self, progress: float) -> tuple[str, ...]:
        """Stages that train now.

        Retrieve goes first, alone: a matrix step of Muon has a fixed size, so the weak signal of "is this sentence
        about her?" is lost among the strong ones of copying and adding, and read needs what retrieve learns from it.
        """
        alone = self._reached["retrieve"] < _RETRIEVE_ALONE and progress < _LATEST_OTHERS
        return ("retrieve",) if alone else tuple(LESSONS)

    def note(self, stage: str, loss: float) -> None:
        """Record the loss of a step's lessons."""
        self._recent[stage].append(loss)

    def state(self) -> dict[str, float]:
        """Running loss and grade of each stage, for the log."""
        losses = {stage: round(fmean(recent), 4) for stage, recent in self._recent.items() if recent}
        return losses | {f"{stage}_grade": reached for stage, reached in self._reached.items()}


def backward(
    model: LlamaForCausalLM, lessons: Sequence[Lesson], weight: float = 1.0, stressed: Sequence[int] = ()
) -> float:
    """Add ``weight`` times the gradients of the mean loss a target token, in nats, and return that loss.

    Short and long lessons go through the model apart, which saves most of the padding.

    Args:
        model: Collects the gradients.
        lessons: One step's lessons of one kind.
        weight: Of their loss among others.
        stressed: Target tokens that would be lost in long targets: the loss at each counts once more, as much as all
            the targets of an average lesson together.
    """
    ordered = sorted(lessons, key=lambda lesson: len(lesson.user) + len(lesson.target))
    half = len(ordered) // 2
    parts = [batch(part) for part in (ordered[:half], ordered[half:]) if part]
    targets = sum(int((labels != NO_LOSS).sum()) for _, labels in parts)
    total = 0.0
    for inputs, labels in parts:
        losses = token_losses(model, inputs, labels)
        loss = losses.sum() / targets
        total += loss.item()
        if stressed:
            wanted = labels[:, 1:][labels[:, 1:] != NO_LOSS]
            loss = loss + losses[torch.isin(wanted, torch.tensor(stressed))].sum() / len(lessons)
        (weight * loss).backward()
    return total


def token_losses(model: LlamaForCausalLM, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target token, in nats, row by row."""
    hidden = model.model(input_ids=inputs[:, :-1], use_cache=False).last_hidden_state
    wanted = labels[:, 1:] != NO_LOSS
    return functional.cross_entropy(model.lm_head(hidden[wanted]), labels[:, 1:][wanted], reduction="none")
