"""Chooses a controller on one benchmark alone. Nothing here opens another one: it is given recordings, no paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from benchmarks.adaptive.pools import Recording
from benchmarks.adaptive.replay import Controller, random_orders, replay
from env.strategies.stopping import FixedSamples, ProbeCut, TrendRule
from env.strategies.tallies import Bools, Floats

SAVING = 0.80
"""Mean share of SC@64's tokens that a choice must save here; five points above the goal, for harder questions."""

BASELINE = Controller(FixedSamples(), 1, 64)
"""SC@64. One after the other, so that ties go by the order of the draws and not to the shorter samples."""

ORDERS = 160
SEED = 24
FOLDS = 10
PARTITIONS = 20
EXTENDED = 4


@dataclass(frozen=True)
class Scored:
    """A controller's results on the questions of one benchmark."""

    controller: Controller
    accuracy: Floats
    """Mean over the orders, shape (models, questions)."""

    tokens: Floats
    """Mean over the orders, shape (models, questions)."""

    def mean_accuracy(self, chosen: Bools | slice = slice(None)) -> float:
        """Mean over models and the chosen questions."""
        return float(self.accuracy[:, chosen].mean())

    def saving(self, baseline: Scored, chosen: Bools | slice = slice(None)) -> float:
        """Share of the baseline's tokens saved, by model, then the mean over models."""
        return float(np.mean(1 - self.tokens[:, chosen].mean(1) / baseline.tokens[:, chosen].mean(1)))


@dataclass(frozen=True)
class Choice:
    """What was chosen, and how well such choices do on questions they were not made on."""

    best: Scored
    baseline: Scored
    candidates: int
    by_family: Mapping[str, Scored]
    """The best candidate of each family: plain, giving up, confirming by probes, cutting samples by probes."""

    held_out_difference: float
    """Accuracy less the baseline's on left-out tenths of the questions, chosen on the other nine."""

    held_out_saving: float


def grid() -> Iterator[Controller]:
    """The plain controllers: no probes, no giving up."""
    axes = product(
        (4, 8),  # width
        (16, 24, 32, 40),  # most
        (8000.0, 12_000.0),  # fade
        (0.35, 0.5, 0.65),  # floor
        (0.8, 0.85, 0.9, 0.95),  # threshold
    )
    for width, most, fade, floor, threshold in axes:
        yield Controller(TrendRule(fade, threshold, floor), width, most)


def extended(controller: Controller) -> Iterator[tuple[str, Controller]]:
    """The same controller with one more device, by the name of the family."""
    rule = controller.rule
    assert isinstance(rule, TrendRule)
    for least, begun in product((0.25, 0.35), (8, 16)):
        yield "giving up", replace(controller, rule=replace(rule, give_up_share=least, give_up_after=begun))
    for weight, after in product((0.5, 1.0), (4, 8)):
        yield "confirming by probes", replace(controller, rule=replace(rule, confirm=weight, confirm_after=after))
    for stable, share in ((8, 0.5), (12, 0.5), (16, 0.5), (24, 0.0)):
        yield "cutting samples by probes", replace(controller, cut=ProbeCut(stable, share))


def score(recordings: Mapping[str, Recording], controller: Controller, orders: int, seed: int) -> Scored:
    """Replay a controller on every model."""
    accuracy, tokens = [], []
    for recording in recordings.values():
        questions, draws = recording.answers.shape
        chosen = random_orders(questions, draws, orders, BASELINE.most, seed)
        found = replay(recording, chosen, controller)
        accuracy.append((found.answers == recording.gold[:, None]).mean(1))
        tokens.append(found.tokens.mean(1))
    return Scored(controller, np.array(accuracy), np.array(tokens))


def choose(recordings: Mapping[str, Recording]) -> Choice:
    """The most accurate controller (mean over models) among those that save at least `SAVING`; of equals the cheaper.

    Probes and giving up are tried on the `EXTENDED` most accurate plain controllers that save enough or nearly so.
    """
    baseline = score(recordings, BASELINE, ORDERS, SEED)
    plain = [score(recordings, controller, ORDERS, SEED) for controller in grid()]
    near = sorted(
        (s for s in plain if s.saving(baseline) >= SAVING - 0.06), key=lambda s: s.mean_accuracy(), reverse=True
    )
    families: dict[str, list[Scored]] = {"plain": plain}
    for one in near[:EXTENDED]:
        for family, controller in extended(one.controller):
            families.setdefault(family, []).append(score(recordings, controller, ORDERS, SEED))
    everything = [s for members in families.values() for s in members]
    by_family = {name: _best(members, baseline) for name, members in families.items()}
    difference, saving = _held_out(everything, baseline)
    return Choice(_best(everything, baseline), baseline, len(everything), by_family, difference, saving)


def _best(candidates: Sequence[Scored], baseline: Scored, chosen: Bools | slice = slice(None)) -> Scored:
    able = [s for s in candidates if s.saving(baseline, chosen) >= SAVING]
    if not able:
        return max(candidates, key=lambda s: s.saving(baseline, chosen))
    return max(able, key=lambda s: (round(s.mean_accuracy(chosen), 9), s.saving(baseline, chosen)))


def _held_out(candidates: Sequence[Scored], baseline: Scored) -> tuple[float, float]:
    """Ten-fold cross-validation of the choice itself, over `PARTITIONS` random partitions of the questions."""
    accuracy = np.array([s.accuracy.mean(0) for s in candidates])
    tokens = np.array([s.tokens for s in candidates])
    questions = accuracy.shape[1]
    rng = np.random.default_rng(SEED)
    difference = np.zeros((PARTITIONS, questions))
    spent = np.zeros((PARTITIONS, tokens.shape[1], questions))
    for partition in range(PARTITIONS):
        fold = rng.permutation(questions) % FOLDS
        for out in range(FOLDS):
            kept, left = fold != out, fold == out
            share = (tokens[:, :, kept].mean(2) / baseline.tokens[:, kept].mean(1)).mean(1)
            best = int(np.argmax(np.where(1 - share >= SAVING, accuracy[:, kept].mean(1), -1)))
            difference[partition, left] = accuracy[best, left] - baseline.accuracy[:, left].mean(0)
            spent[partition][:, left] = tokens[best][:, left]
    saving = 1 - spent.mean((0, 2)) / baseline.tokens.mean(1)
    return float(difference.mean()), float(saving.mean())
