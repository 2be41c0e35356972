"""Cascades: a small model answers where its samples agree, else the next larger one is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from benchmarks.adaptive.pools import MODELS, Recording
from benchmarks.adaptive.replay import Controller, Replayed, random_orders, replay
from benchmarks.adaptive.selection import BASELINE
from env.strategies.stopping import TrendRule
from env.strategies.tallies import Floats

SPARE = 0.01
"""Of a thousand cascades the cheapest able one owes something to luck; so much accuracy is kept for that."""


@dataclass(frozen=True)
class Link:
    """One model of a cascade and when its answer is taken: where its rule stops before its samples run out."""

    model: str
    controller: Controller


Chain = tuple[Link, ...]


@dataclass(frozen=True)
class Flowed:
    """A cascade's results, shape (questions,), means over the orders."""

    accuracy: Floats
    flops: Floats
    """2 x parameters x generated tokens, over all models asked."""


def chains(last: Controller) -> Iterator[Chain]:
    """Cascades of one to three models; the last one runs the controller given, the others agree or pass on."""
    rule = last.rule
    assert isinstance(rule, TrendRule)
    for length in (1, 2, 3):
        for models in combinations(MODELS, length):
            for settings in product(product((0.8, 0.9, 0.95, 0.98), (4, 8, 16)), repeat=length - 1):
                links = [
                    Link(model, _passing(rule, threshold, most))
                    for model, (threshold, most) in zip(models, settings, strict=False)
                ]
                yield (*links, Link(models[-1], last))


def _passing(rule: TrendRule, threshold: float, most: int) -> Controller:
    # Giving up is no agreement: a scattered question is passed on, not answered.
    return Controller(replace(rule, threshold=threshold, give_up_share=0.0, confirm=0.0), 4, most)


class Cascades:
    """Replays cascades on one benchmark; each model's part is replayed once."""

    def __init__(self, recordings: Mapping[str, Recording], orders: int, seed: int) -> None:
        self._recordings = recordings
        self._orders, self._seed = orders, seed
        self._replayed: dict[Link, Replayed] = {}

    def run(self, chain: Chain) -> Flowed:
        """Accuracy and FLOPs of a cascade."""
        gold = self._recordings[chain[0].model].gold[:, None]
        open_, right, flops = np.ones(1, dtype=np.bool_), np.zeros(1), np.zeros(1)
        for link in chain:
            found = self._part(link)
            flops = flops + open_ * 2 * MODELS[link.model] * found.tokens
            takes = open_ & (found.stopped | (link is chain[-1]))
            right = right + takes * (found.answers == gold)
            open_ = open_ & ~takes
        return Flowed(right.mean(1), flops.mean(1))

    def baseline(self, model: str) -> Flowed:
        """SC@64 of one model."""
        return self.run((Link(model, BASELINE),))

    def _part(self, link: Link) -> Replayed:
        if link not in self._replayed:
            recording = self._recordings[link.model]
            questions, draws = recording.answers.shape
            # Models are sampled independently: each has orders of its own.
            seed = self._seed + list(MODELS).index(link.model)
            orders = random_orders(questions, draws, self._orders, BASELINE.most, seed)
            self._replayed[link] = replay(recording, orders, link.controller)
        return self._replayed[link]


def choose_cascade(recordings: Mapping[str, Recording], last: Controller, orders: int, seed: int) -> Chain:
    """The cascade with the fewest FLOPs that is more accurate than SC@64 of the largest model by `SPARE`.

    Where none is, the most accurate one, of equals the cheapest.
    """
    cascades = Cascades(recordings, orders, seed)
    wanted = float(cascades.baseline(list(MODELS)[-1]).accuracy.mean()) + SPARE

    def rank(chain: Chain) -> tuple[float, float]:
        flowed = cascades.run(chain)
        return max(0.0, wanted - float(flowed.accuracy.mean())), float(flowed.flops.mean())

    return min(chains(last), key=rank)
