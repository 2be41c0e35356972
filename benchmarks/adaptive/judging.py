"""Judges chosen controllers on a benchmark they were not chosen on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.adaptive.cascade import Cascades, Chain
from benchmarks.adaptive.pools import MODELS, Recording
from benchmarks.adaptive.replay import Controller
from benchmarks.adaptive.selection import BASELINE, Scored, score
from env.strategies.stopping import AdaptiveConsistency, FixedSamples, ProbeCut, WindowConsistency
from planner.evidence.intervals import Interval, paired_difference

REFERENCES: Mapping[str, Controller] = {
    "SC@16": Controller(FixedSamples(), 1, 16),
    "ASC 0.95": Controller(AdaptiveConsistency(0.95), 1, 64),
    "ESC window 8": Controller(WindowConsistency(8), 8, 64),
    "SC@64 of samples cut by probes stable 12 times": Controller(FixedSamples(), 1, 64, ProbeCut(12)),
}
"""Known rules with their papers' parameters; nothing is chosen among them."""


def judge(recordings: Mapping[str, Recording], chosen: Controller, orders: int, seed: int) -> dict[str, Any]:
    """The chosen controller, the references and SC@64, all on the same random orders."""
    baseline = score(recordings, BASELINE, orders, seed)
    found = {"chosen": score(recordings, chosen, orders, seed)}
    found.update((name, score(recordings, one, orders, seed)) for name, one in REFERENCES.items())
    return {
        "SC@64": {
            "accuracy": round(baseline.mean_accuracy(), 4),
            "by_model": {
                model: {"accuracy": round(float(a.mean()), 4), "tokens": round(float(t.mean()))}
                for model, a, t in zip(MODELS, baseline.accuracy, baseline.tokens, strict=True)
            },
        },
        **{name: against(one, baseline) for name, one in found.items()},
    }


def against(one: Scored, baseline: Scored) -> dict[str, Any]:
    """A controller against SC@64: accuracy, paired difference over questions, tokens saved; by model and mean."""
    by_model = {}
    for place, model in enumerate(MODELS):
        accuracy, base = one.accuracy[place], baseline.accuracy[place]
        by_model[model] = {
            "accuracy": round(float(accuracy.mean()), 4),
            "difference": interval(paired_difference(list(accuracy), list(base))),
            "tokens": round(float(one.tokens[place].mean())),
            "saved": round(float(1 - one.tokens[place].mean() / baseline.tokens[place].mean()), 4),
        }
    return {
        "accuracy": round(one.mean_accuracy(), 4),
        "difference": interval(paired_difference(list(one.accuracy.mean(0)), list(baseline.accuracy.mean(0)))),
        "saved": round(one.saving(baseline), 4),
        "saved_of_all_tokens": round(float(1 - one.tokens.sum() / baseline.tokens.sum()), 4),
        "by_model": by_model,
    }


def judge_cascade(recordings: Mapping[str, Recording], chain: Chain, orders: int, seed: int) -> dict[str, Any]:
    """A cascade against SC@64 of each model, in FLOPs."""
    cascades = Cascades(recordings, orders, seed)
    flowed = cascades.run(chain)
    rivals = {}
    for model in MODELS:
        base = cascades.baseline(model)
        rivals[model] = {
            "accuracy": round(float(base.accuracy.mean()), 4),
            "pflops": round(float(base.flops.mean()) / 1e15, 3),
            "difference": interval(paired_difference(list(flowed.accuracy), list(base.accuracy))),
            "share_of_flops": round(float(flowed.flops.mean() / base.flops.mean()), 4),
        }
    return {
        "accuracy": round(float(flowed.accuracy.mean()), 4),
        "pflops": round(float(flowed.flops.mean()) / 1e15, 3),
        "against_sc64_of": rivals,
    }


def interval(found: Interval) -> dict[str, Any]:
    """An interval for JSON."""
    return {
        "estimate": round(found.estimate, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "questions": found.examples,
        "method": found.method,
    }


def described(controller: Controller) -> dict[str, Any]:
    """A controller for JSON."""
    return {
        "rule": {"name": controller.rule.name, **asdict(controller.rule)},  # type: ignore[call-overload]
        "width": controller.width,
        "most": controller.most,
        "cut": None if controller.cut is None else asdict(controller.cut),
    }
