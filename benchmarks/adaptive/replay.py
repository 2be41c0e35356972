"""Replays a controller over recorded solutions, in many random orders at once.

A controller begins samples in sets of ``width`` that run side by side. It looks at them every 500 tokens: samples that
have ended by then vote, and the rule may stop everything, end the set (its running samples are cut without a vote) or
let it run. A set that has ended without a stop is followed by the next one, up to ``most`` samples. A cut sample costs
the tokens it had at that look. Nothing that a live controller would not have seen by then goes into a decision.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.adaptive.pools import PROBE_TOKENS, TICK, Recording
from env.strategies.stopping import ProbeCut, StoppingRule, stable_runs
from env.strategies.tallies import (
    NO_ANSWER,
    Bools,
    Floats,
    Ints,
    VoteCounts,
)

_ROUNDING = 1e-6
"""Tokens; samples cut at probes have lengths that meet bounds exactly."""


@dataclass(frozen=True)
class Controller:
    """A rule and how its samples are begun."""

    rule: StoppingRule
    width: int
    most: int
    cut: ProbeCut | None = None
    """Ends single samples early."""

    @property
    def probes(self) -> bool:
        """Whether samples are probed, and probes paid for."""
        return self.cut is not None or self.rule.confirm > 0


@dataclass(frozen=True)
class Replayed:
    """What came out, every field of shape (questions, orders)."""

    answers: Ints
    tokens: Floats
    stopped: Bools
    """Whether the rule stopped, rather than the samples running out."""


def random_orders(questions: int, draws: int, orders: int, most: int, seed: int) -> Ints:
    """Which ``most`` recorded draws come in which order, without replacement; shape (questions, orders, most)."""
    keys = np.random.default_rng(seed).random((questions, orders, draws))
    result: Ints = np.argsort(keys, axis=-1)[..., :most]
    return result


def replay(recording: Recording, orders: Ints, controller: Controller) -> Replayed:
    """Run a controller on every question in every order."""
    plain = recording if controller.cut is None else recording.cut(controller.cut)
    run = _Run(plain, orders, controller)
    for first in range(0, controller.most, controller.width):
        if run.live.any():
            run.wave(first, min(controller.width, controller.most - first))
    answers = np.where(run.stopped, run.answers, run.votes.leader(run.rows))
    tokens = run.tokens * (1 + PROBE_TOKENS / TICK) if controller.probes else run.tokens
    shape = orders.shape[:2]
    return Replayed(answers.reshape(shape), tokens.reshape(shape), run.stopped.reshape(shape))


class _Run:
    """The state of all rows; a row is one question in one order."""

    def __init__(self, recording: Recording, orders: Ints, controller: Controller) -> None:
        questions, count, _ = orders.shape
        self._recording, self._rule = recording, controller.rule
        self._orders = orders.reshape(questions * count, -1)
        self._question = np.repeat(np.arange(questions), count)
        self.rows = np.arange(questions * count)
        self.votes = VoteCounts(len(self.rows), recording.codes)
        self.live = np.ones(len(self.rows), dtype=np.bool_)
        self.stopped = np.zeros(len(self.rows), dtype=np.bool_)
        self.answers = np.full(len(self.rows), NO_ANSWER, dtype=np.int64)
        self.tokens = np.zeros(len(self.rows))

    def wave(self, first: int, width: int) -> None:
        """Run one set of samples of the rows that have not stopped."""
        rows = self.rows[self.live]
        draws, question = self._orders[rows, first : first + width], self._question[rows][:, None]
        lengths = self._recording.tokens[question, draws]
        order = np.argsort(lengths, axis=1, kind="stable")
        lengths = np.take_along_axis(lengths, order, 1)
        draws = np.take_along_axis(draws, order, 1)
        answers = self._recording.answers[question, draws]
        looks = np.ceil(lengths / TICK) * TICK
        probes = self._recording.probes[question, draws].astype(np.int64) if self._rule.confirm > 0 else None
        runs = None if probes is None else stable_runs(probes)
        ended = np.zeros(len(rows), dtype=np.int64)  # samples that have ended: the first ones, being sorted by length
        now, active = np.zeros(len(rows)), np.arange(len(rows))
        while len(active):
            now[active] = self._next_look(rows, active, now, looks, ended, first + width)
            self._take_votes(rows, active, now, looks, lengths, answers, ended)
            running = width - ended[active]
            begun = np.full(len(active), first + width, dtype=np.int64)
            here = rows[active]
            tally = self.votes.tally(here, begun, running, self._rule.needs_counts)
            stop, leader = self._rule.stops(tally), self.votes.leader(here)
            if probes is not None and runs is not None:
                seen = self._confirming(probes, runs, active, now, ended, width)
                weights = self._rule.confirm * self._rule.weight(now[active])
                shifted, confirmed = self.votes.confirmed(here, tally, seen, weights)
                sooner = ~stop & (seen != NO_ANSWER).any(1) & self._rule.stops(shifted)
                stop, leader = stop | sooner, np.where(sooner, confirmed, leader)
            over = stop | (running == 0) | (now[active] >= self._rule.settles_at(tally) - _ROUNDING)
            self.tokens[here[over]] += running[over] * now[active][over]
            self.answers[here[stop]] = leader[stop]
            self.stopped[here[stop]] = True
            self.live[here[stop]] = False
            active = active[~over]

    def _next_look(self, rows: Ints, active: Ints, now: Floats, looks: Floats, ended: Ints, begun: int) -> Floats:
        """The next look at which something can change: all others would be answered like the last one."""
        if self._rule.confirm > 0:
            return now[active] + TICK
        width = looks.shape[1]
        upcoming = looks[active, ended[active]]
        tally = self.votes.tally(rows[active], np.full(len(active), begun), width - ended[active])
        settles = np.ceil((self._rule.settles_at(tally) - _ROUNDING) / TICK) * TICK
        result: Floats = np.maximum(np.minimum(upcoming, settles), now[active] + TICK)
        return result

    def _take_votes(
        self, rows: Ints, active: Ints, now: Floats, looks: Floats, lengths: Floats, answers: Ints, ended: Ints
    ) -> None:
        """Let the samples that have ended by now vote, shortest first."""
        width = looks.shape[1]
        while True:
            open_ = active[ended[active] < width]
            due = open_[looks[open_, ended[open_]] <= now[open_]]
            if not len(due):
                return
            place = ended[due]
            tokens = lengths[due, place]
            self.votes.add(rows[due], answers[due, place], tokens, self._rule.weight(tokens))
            self.tokens[rows[due]] += tokens
            ended[due] += 1

    def _confirming(self, probes: Ints, runs: Ints, active: Ints, now: Floats, ended: Ints, width: int) -> Ints:
        """What running samples with stable probes would answer, shape (active, width)."""
        look = np.minimum((now[active] / TICK).astype(np.int64) - 1, probes.shape[2] - 1)
        running = np.arange(width)[None, :] >= ended[active][:, None]
        probed = probes[active, :, look]
        stable = runs[active, :, look] >= self._rule.confirm_after
        result: Ints = np.where(running & stable, probed, NO_ANSWER)
        return result
