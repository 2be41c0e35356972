"""How the scripted agent thinks: a hill climb from the best trials, read out of the prompt's data blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from planner.bench.scripted import data_block

Settings = dict[str, tuple[str, str, int]]
"""stage -> (model, strategy, samples)"""


def answer_guidelines(prompt: str) -> dict[str, Any]:
    """One model preference and one direction of samples per stage, from the best trial and its curves."""
    best = _trials(prompt)[0]
    curves = _curves(prompt).get(best["no"], {})
    guidelines = []
    for stage, (model, _, samples) in _settings(best).items():
        points = [(k, score) for k, score, coverage in curves.get(stage, []) if coverage and coverage >= 0.8]
        peak = max(points, key=lambda p: (p[1], -p[0]))[0] if points else samples
        direction = "down" if peak < samples else "up"
        for insight, text, fields in (
            (1, f"{stage}: pursue {model}, the model of trial {best['no']}", {"preferred_model": model}),
            (2, f"{stage}: {direction} from {samples} samples", {"direction": direction, "plateau": peak}),
        ):
            empty = dict.fromkeys(("preferred_model", "direction", "plateau", "shift_budget_from", "shift_budget_to"))
            guidelines.append({"insight": insight, "stage": stage, "text": text, "structured": {**empty, **fields}})
    return {"guidelines": guidelines}


def answer_proposals(prompt: str) -> dict[str, Any]:
    """As many new, affordable allocations as are wanted, or as there are: neighbours of the best three trials first."""
    space = json.loads(data_block(prompt, "search_space"))
    wanted = int(re.findall(r"^Allocations wanted: (\d+)$", prompt, re.MULTILINE)[-1])
    trials = _trials(prompt)
    taken = [_settings(trial) for trial in trials]
    taken += [_settings(r) for r in json.loads(f"[{data_block(prompt, 'refused')}]") if "allocation" in r]
    score = trials[0]["score"] if trials else 0.5
    starts = taken[: min(3, len(trials))] or [_cheapest(space)]
    queues = [_moves(space, start, _curves(prompt).get(t["no"], {})) for start, t in zip(starts, trials, strict=False)]
    proposals: list[dict[str, Any]] = []
    for candidate in _breadth_first(space, queues, starts):
        if len(proposals) == wanted:
            break
        if candidate in taken or _cost(space, candidate) > space["plan_budget"] * (1 - 1e-8):
            continue
        taken.append(candidate)
        proposals.append(
            {
                "allocation": {s: {"model": m, "strategy": g, "samples": k} for s, (m, g, k) in candidate.items()},
                "reason": "a neighbour of a good trial, not tried yet",
                "expected_score": score,
            }
        )
    return {"proposals": proposals}


def _breadth_first(
    space: dict[str, Any], queues: list[Iterator[Settings]], starts: list[Settings]
) -> Iterator[Settings]:
    """The moves of all starts in turn, then moves of moves, 2000 at most."""
    seen: list[Settings] = [*starts]
    for round_ in zip_longest(*queues):
        for candidate in round_:
            if candidate is not None and candidate not in seen:
                seen.append(candidate)
                yield candidate
    for start in seen:
        if len(seen) > 2000:
            return
        for candidate in _moves(space, start, {}):
            if candidate not in seen:
                seen.append(candidate)
                yield candidate


def _moves(space: dict[str, Any], start: Settings, curves: dict[str, Any]) -> Iterator[Settings]:
    """The samples that the curves like best, then per stage: more and fewer samples, other models and strategies."""
    peaks = dict(start)
    for stage, points in curves.items():
        sure = [p for p in points if p[2] and p[2] >= 0.8]
        if sure and stage in peaks:
            model, strategy, _ = peaks[stage]
            peaks[stage] = (model, strategy, max(sure, key=lambda p: (p[1], -p[0]))[0])
    yield _normal(space, peaks)
    for stage in space["stages"]:
        name = stage["stage"]
        model, strategy, samples = start[name]
        allowed = stage["samples"].get("choices") or range(stage["samples"]["min"], stage["samples"]["max"] + 1)
        near = sorted(allowed, key=lambda k: (min(abs(k - 2 * samples), abs(k - samples / 2)), abs(k - samples)))
        for k in [k for k in near if k != samples][:4]:
            yield _normal(space, {**start, name: (model, strategy, k)})
        for row in stage["models"]:
            yield _normal(space, {**start, name: (row["model"], strategy, samples)})
        for other in stage["strategies"]:
            yield _normal(space, {**start, name: (model, other, samples)})


def _normal(space: dict[str, Any], settings: Settings) -> Settings:
    """One name for strategies that do the same: with one sample, the stage's first."""
    first = {stage["stage"]: stage["strategies"][0] for stage in space["stages"]}
    return {name: (m, first[name] if k == 1 else g, k) for name, (m, g, k) in settings.items()}


def _cost(space: dict[str, Any], settings: Settings) -> float:
    total = 0.0
    for stage in space["stages"]:
        model, strategy, samples = settings[stage["stage"]]
        row = next(row for row in stage["models"] if row["model"] == model)
        cost = next(c for c in row["costs"] if strategy in c["strategies"])
        total += max(0.0, cost["fixed"] + cost["each_further"] * samples)
    return total


def _cheapest(space: dict[str, Any]) -> Settings:
    chosen: Settings = {}
    for stage in space["stages"]:
        row = min(stage["models"], key=lambda r: r["costs"][0]["one_sample"])
        allowed = stage["samples"].get("choices") or [stage["samples"]["min"]]
        chosen[stage["stage"]] = (row["model"], stage["strategies"][0], min(allowed))
    return chosen


def _trials(prompt: str) -> list[dict[str, Any]]:
    trials: list[dict[str, Any]] = json.loads(data_block(prompt, "history"))["trials"]
    return trials


def _curves(prompt: str) -> dict[int, dict[str, Any]]:
    return {row["no"]: row["curves"] for row in json.loads(f"[{data_block(prompt, 'curves')}]")}


def _settings(row: dict[str, Any]) -> Settings:
    read = {stage: text.split("/") for stage, text in row["allocation"].items()}
    return {stage: (model, strategy, int(samples)) for stage, (model, strategy, samples) in read.items()}
