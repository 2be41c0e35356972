"""The vectorised replay of controllers against a plain one, and what it may not see."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from benchmarks.adaptive.pools import MODELS, PROBE_TOKENS, TICK, Recording, load
from benchmarks.adaptive.replay import Controller, random_orders, replay
from benchmarks.adaptive.selection import score
from env.strategies.stopping import (
    AdaptiveConsistency,
    FixedSamples,
    ProbeCut,
    TrendRule,
    WindowConsistency,
)
from env.strategies.tallies import NO_ANSWER, Ints
from tests.env.backends.pools import write_rows

QUESTIONS, DRAWS, PROBES = 6, 24, 14


def a_recording(seed: int = 0) -> Recording:
    """Questions from unanimous to scattered; wrong samples are longer; probes wander, then settle on the answer."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(700, 7000, (QUESTIONS, DRAWS)).astype(float)
    scatter = np.arange(QUESTIONS)[:, None] + 1
    answers = (rng.random((QUESTIONS, DRAWS)) * scatter).astype(np.int64)
    answers[rng.random(answers.shape) < 0.1] = NO_ANSWER
    tokens += 2000 * (answers > 0)
    probes = np.full((QUESTIONS, DRAWS, PROBES), NO_ANSWER, dtype=np.int16)
    for question in range(QUESTIONS):
        for draw in range(DRAWS):
            count = min(PROBES, math.ceil(tokens[question, draw] / TICK) - 1)
            wander = rng.integers(-1, question + 1, count)
            wander[count // 2 :] = answers[question, draw]
            probes[question, draw, :count] = wander
    return Recording(answers, tokens, probes, np.zeros(QUESTIONS, dtype=np.int64), QUESTIONS + 1)


CONTROLLERS = {
    "fixed": Controller(FixedSamples(), 8, 16),
    "asc": Controller(AdaptiveConsistency(0.9), 1, 16),
    "esc": Controller(WindowConsistency(4), 4, 16),
    "trend": Controller(TrendRule(3000, 0.9), 4, 18),
    "fading": Controller(TrendRule(3000, 0.95, floor=0.4), 5, 20),
    "giving up": Controller(TrendRule(3000, 0.999, give_up_share=0.5, give_up_after=8), 4, 20),
    "confirming": Controller(TrendRule(3000, 0.9, floor=0.3, confirm=0.7, confirm_after=2), 4, 20),
    "cutting": Controller(TrendRule(3000, 0.9), 4, 20, ProbeCut(3, 0.4)),
}


def plainly(recording: Recording, question: int, order: list[int], controller: Controller) -> tuple[int, float, bool]:
    """One question in one order, look by look, in plain Python."""
    rule = controller.rule
    samples = []
    for draw in order:
        length, answer = float(recording.tokens[question, draw]), int(recording.answers[question, draw])
        probes = [int(p) for p in recording.probes[question, draw]]
        if controller.cut is not None:
            for end in range(1, len(probes) + 1):
                run = 0
                while run < end and probes[end - 1 - run] == probes[end - 1] != NO_ANSWER:
                    run += 1
                if run >= controller.cut.stable and run >= controller.cut.share * end:
                    length, answer = float(TICK * end), probes[end - 1]
                    break
        samples.append((length, answer, probes))
    fade = rule.fade if isinstance(rule, TrendRule) else math.inf
    votes: list[tuple[float, int]] = []
    spent = 0.0

    def totals(extra: list[tuple[float, int]]) -> dict[int, float]:
        found: dict[int, float] = {}
        for length, answer in [*votes, *extra]:
            if answer != NO_ANSWER:
                found[answer] = found.get(answer, 0.0) + math.exp(-length / fade)
        return found

    def leading(found: dict[int, float]) -> tuple[int, float, float]:
        ranked = sorted(found.items(), key=lambda pair: -pair[1])
        if not ranked:
            return NO_ANSWER, 0.0, 0.0
        first, second = ranked[0][1], ranked[1][1] if len(ranked) > 1 else 0.0
        if first == second:  # among equals the first to reach that many votes
            so_far: dict[int, float] = {}
            for length, answer in votes:
                so_far[answer] = so_far.get(answer, 0.0) + math.exp(-length / fade)
                if answer != NO_ANSWER and so_far[answer] == first:
                    return answer, first, second
        return ranked[0][0], first, second

    def sure(first: float, second: float, threshold: float) -> bool:
        shortest = min((t for t, a in votes if a != NO_ANSWER), default=0.0)
        unit = math.exp(shortest / fade)
        return first > 0 and beta.sf(0.5, first * unit + 1, second * unit + 1) >= threshold

    for start in range(0, controller.most, controller.width):
        wave = samples[start : min(start + controller.width, controller.most)]
        begun, now = start + len(wave), 0.0
        while True:
            now += TICK
            for length, answer, _ in sorted(wave, key=lambda sample: sample[0]):
                if now - TICK < length <= now:
                    votes.append((length, answer))
                    spent += length
            running = [s for s in wave if s[0] > now]
            answer, first, second = leading(totals([]))
            stop = False
            if isinstance(rule, AdaptiveConsistency):
                stop = sure(first, second, rule.threshold)
            elif isinstance(rule, WindowConsistency):
                last = [a for _, a in votes[-rule.window :]]
                stop = not running and len(last) == rule.window and len(set(last)) == 1 and last[0] != NO_ANSWER
            elif isinstance(rule, TrendRule):
                stop = sure(first, second, rule.threshold)
                scattered = first < rule.give_up_share * sum(totals([]).values())
                stop = stop or (scattered and not running and begun >= rule.give_up_after)
                if rule.confirm and not stop:
                    extra = totals([])
                    look = min(int(now / TICK) - 1, PROBES - 1)
                    seen = False
                    for _, _, probes in running:
                        last_ones = probes[max(0, look + 1 - rule.confirm_after) : look + 1]
                        stable = len(last_ones) == rule.confirm_after and len(set(last_ones)) == 1
                        seen = seen or (stable and last_ones[0] != NO_ANSWER)
                        if stable and last_ones[0] in extra:
                            extra[last_ones[0]] += rule.confirm * math.exp(-now / fade)
                    shifted, first_, second_ = leading(extra)
                    if seen and sure(first_, second_, rule.threshold):
                        stop, answer = True, shifted
            settled = False
            if isinstance(rule, TrendRule) and running and first > 0:
                shortest = min(t for t, a in votes if a != NO_ANSWER)
                settled = first - second >= len(running) * math.exp(-now / fade) * (1 - 1e-12)
                settled = settled or math.exp(-(now - shortest) / fade) <= rule.floor * (1 + 1e-12)
            if stop or settled or not running:
                spent += len(running) * now
                if stop:
                    break
                break
        if stop:
            return answer, spent, True
    return leading(totals([]))[0], spent, False


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_replay_decides_and_spends_as_a_plain_look_by_look_controller(name: str) -> None:
    controller, recording = CONTROLLERS[name], a_recording()
    orders = random_orders(QUESTIONS, DRAWS, 12, 20, 3)
    found = replay(recording, orders, controller)
    factor = 1 + PROBE_TOKENS / TICK if controller.probes else 1.0
    stops = 0
    for question in range(QUESTIONS):
        for order in range(12):
            answer, spent, stopped = plainly(recording, question, list(orders[question, order]), controller)
            assert found.stopped[question, order] == stopped
            assert found.tokens[question, order] == pytest.approx(spent * factor)
            assert found.answers[question, order] == answer
            stops += stopped
    assert stops > 0 or name == "fixed"


@pytest.mark.parametrize("name", CONTROLLERS)
def test_what_a_controller_never_saw_does_not_change_what_it_did(name: str) -> None:
    controller, recording = CONTROLLERS[name], a_recording()
    orders = random_orders(QUESTIONS, DRAWS, 1, 20, 3)
    found = replay(recording, orders, controller)
    # Everything after 4,000 tokens of every sample becomes something else: whoever had stopped by then is unmoved.
    longer = recording.tokens > 4000
    answers: Ints = np.where(longer, QUESTIONS, recording.answers)
    probes = recording.probes.copy()
    probes[:, :, 4000 // TICK :] = QUESTIONS
    other = replay(
        replace(recording, answers=answers, tokens=recording.tokens + 900.0 * longer, probes=probes), orders, controller
    )
    early = found.stopped & (found.tokens < 4000)
    assert (other.answers[early] == found.answers[early]).all()
    assert (other.tokens[early] == found.tokens[early]).all()


def test_orders_take_draws_without_replacement() -> None:
    orders = random_orders(3, DRAWS, 50, 20, 1)
    assert all(len(set(order)) == 20 for question in orders for order in question)
    assert orders.min() >= 0
    assert orders.max() < DRAWS


def test_fixed_samples_spend_every_token_and_take_the_majority() -> None:
    recording = a_recording()
    scored = score({"one": recording}, Controller(FixedSamples(), DRAWS, DRAWS), 4, 0)
    assert scored.tokens[0] == pytest.approx(recording.tokens.sum(1))
    majority = [np.bincount(row[row >= 0]).argmax() for row in recording.answers]
    clear = [
        np.sort(np.bincount(row[row >= 0], minlength=2))[-1] > np.sort(np.bincount(row[row >= 0], minlength=2))[-2]
        for row in recording.answers
    ]
    assert [a for a, c in zip(scored.accuracy[0], clear, strict=True) if c] == [
        float(m == 0) for m, c in zip(majority, clear, strict=True) if c
    ]


def rows_of(benchmark: str, seed: int) -> list[dict[str, object]]:
    """Four models on four questions, 64 draws; larger models are right more often, and then shorter."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for strength, model in enumerate(MODELS):
        for question in range(4):
            for draw in range(64):
                right = rng.random() < 0.3 + 0.15 * strength
                answer = "7" if right else str(rng.integers(10, 30))
                tokens = int(rng.integers(1000, 2500)) + (0 if right else 1500)
                probes = [answer if rng.random() < 0.5 else "ERR" for _ in range(tokens // 500 - 1)] + [answer]
                rows.append(
                    {"benchmark": benchmark, "model": model, "question_id": question, "sample": draw, "tokens": tokens,
                     "answer": answer, "probe_every": 500, "probes": probes, "gold": "7"}
                )  # fmt: skip
    return rows


def test_only_the_asked_benchmark_is_read_and_the_last_probe_is_not_known_early(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pools.parquet", [*rows_of("aime24", 1), *rows_of("aime25", 2)])
    found = load(path, "aime24")["Qwen3-8B"]
    assert found.answers.shape == (4, 64)
    for question in range(4):
        for draw in range(64):
            probed = int((found.tokens[question, draw] // 500) - 1)
            assert (found.probes[question, draw, probed:] == NO_ANSWER).all()


@pytest.mark.slow
def test_the_command_chooses_judges_and_prints_json(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pools.parquet", [*rows_of("aime24", 1), *rows_of("aime25", 2)])
    out = tmp_path / "adaptive.json"
    command = [sys.executable, "-m", "benchmarks.adaptive", "--pools", str(path), "--orders", "10", "--out", str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    assert result == json.loads(out.read_text())
    assert result["judgement"]["chosen"]["saved"] > 0.5
    assert result["judgement"]["SC@64"]["accuracy"] > 0.9
