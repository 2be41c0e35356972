"""Every strategy on the embedded models: accuracy over FLOPs, and the best that a budget buys.

    python -m benchmarks.strategies            # JSON to stdout and to benchmarks/results/strategies.json
    python -m benchmarks.strategies --markdown # the recorded run as the tables of docs/strategies.md
    python -m benchmarks.strategies --figure out/strategies.html

Stage *solve* with gold expressions on model s (cascades go on to l), stage *retrieve* with m for strategies over sets
of ids. All strategies of a stage run on the same examples and share draws, so that differences are paired; 95%
intervals are BCa over examples. Costs are measured: what each query asked for, prompts counted once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from env.allocation import Allocation, StageSetting
from env.backends.pool import BackendPool
from env.bank import MemorySampleBank
from env.embedded.stages import retrieve_examples, retrieve_pipeline, solve_examples, solve_pipeline
from env.execution import Environment, TrialResult
from env.spec import PipelineSpec
from env.strategies import STRATEGIES
from env.tasks.example import Example
from planner.evidence import mean_interval, paired_difference

RESULT = Path(__file__).parent / "results" / "strategies.json"
SAMPLES = (1, 2, 4, 8, 16, 32)
BUDGETS = (20, 40, 60, 80, 120, 160, 240, 320, 480)
"""MFLOPs per query, between one sample of s and 32."""

TEMPERATURES = (1.0, 1.5)
OF_SETS = tuple(sorted(name for name in STRATEGIES if "ids" in STRATEGIES[name].requires))
OF_TEXTS = tuple(sorted(set(STRATEGIES) - set(OF_SETS)))
Point = dict[str, Any]


async def measure(pipeline: PipelineSpec, examples: Sequence[Example], settings: Sequence[StageSetting]) -> list[Point]:
    """One point for each setting of a pipeline's only stage."""
    stage = pipeline.stages[0].name
    backends = BackendPool(pipeline.models)
    environment = Environment(pipeline, "flops", MemorySampleBank(), backends)
    points: list[Point] = []
    plain: dict[int, TrialResult] = {}
    for setting in settings:
        (result,) = await environment.run_batch([Allocation.of({stage: setting})], examples, str(setting))
        assert result.measured_cost is not None
        scores = [e.score for e in result.evidence if e.score is not None]
        if setting.strategy == "vote" and setting.model == settings[0].model:
            plain[setting.samples] = result
        interval = mean_interval(scores)
        point: Point = {
            "strategy": setting.strategy,
            "model": setting.model,
            "samples": setting.samples,
            "score": round(interval.estimate, 4),
            "interval": [round(interval.low, 4), round(interval.high, 4)],
            "mflops": round(result.measured_cost / 1e6, 2),
            "planned_mflops": round(result.predicted_cost / 1e6, 2),
            "failed": result.failed,
        }
        if setting.samples in plain and setting.strategy != "vote":
            other = [e.score for e in plain[setting.samples].evidence if e.score is not None]
            difference = paired_difference(scores, other)
            point["minus_vote"] = [round(v, 4) for v in (difference.estimate, difference.low, difference.high)]
        points.append(point)
        print(f"{setting}: {point['score']} at {point['mflops']} MFLOPs", file=sys.stderr, flush=True)
    await backends.close()
    return points


async def run(count: int) -> dict[str, Any]:
    """Measure everything."""
    tables: list[dict[str, Any]] = []
    for temperature in TEMPERATURES:
        settings = [StageSetting("s", "vote", k) for k in SAMPLES]
        settings += [StageSetting("s", name, k) for name in OF_TEXTS if name != "vote" for k in SAMPLES[1:]]
        settings += [StageSetting("l", "vote", k) for k in SAMPLES[:3]]
        points = await measure(solve_pipeline(list(OF_TEXTS), temperature), solve_examples(count), settings)
        table = {"stage": "solve", "temperature": temperature, "metric": "exact match", "points": points}
        tables.append({**table, "best_by_budget": best_by_budget(points)})
    settings = [StageSetting("m", "vote", k) for k in SAMPLES[:5]]
    settings += [StageSetting("m", name, k) for name in OF_SETS for k in SAMPLES[1:5]]
    pipeline = retrieve_pipeline(["vote", *OF_SETS], 1.5).model_copy(update={"metric": "f1"})
    points = await measure(pipeline, retrieve_examples(count), settings)
    tables.append({"stage": "retrieve", "temperature": 1.5, "metric": "F1 of the ids", "points": points})
    return {"benchmark": "strategies", "examples": count, "unit": "MFLOPs per query", "tables": tables}


def best_by_budget(points: Sequence[Point]) -> list[Point]:
    """For each budget the point with the highest score that it buys, and the best plain vote beside it."""
    found: list[Point] = []
    for budget in BUDGETS:
        within = [p for p in points if p["mflops"] <= budget]
        if not within:
            continue
        best = max(within, key=lambda p: (p["score"], -p["mflops"]))
        votes = [p for p in within if p["strategy"] == "vote"]
        vote = max(votes, key=lambda p: (p["score"], -p["mflops"])) if votes else None
        found.append({"budget": budget, "best": _short(best), "best_vote": _short(vote) if vote else None})
    return found


def _short(point: Point) -> Point:
    return {key: point[key] for key in ("model", "strategy", "samples", "score", "mflops")}


def markdown(recorded: dict[str, Any]) -> str:
    """The recorded run as tables."""
    parts: list[str] = []
    for table in recorded["tables"]:
        parts.append(
            f"### {table['stage']}, T = {table['temperature']}, {table['metric']}, {recorded['examples']} examples\n"
        )
        ks = sorted({p["samples"] for p in table["points"]})
        parts.append("| model | strategy | " + " | ".join(f"k = {k}" for k in ks) + " |")
        parts.append("|---" * (len(ks) + 2) + "|")
        names = dict.fromkeys((p["model"], p["strategy"]) for p in table["points"])
        for model, strategy in names:
            own = {p["samples"]: p for p in table["points"] if (p["model"], p["strategy"]) == (model, strategy)}
            cells = [f"{own[k]['score']:.3f} ({own[k]['mflops']:.0f})" if k in own else "" for k in ks]
            parts.append(f"| {model} | {strategy} | " + " | ".join(cells) + " |")
        if "best_by_budget" in table:
            parts += ["", "| MFLOPs | best strategy | score | best vote | score |", "|---|---|---|---|---|"]
            for row in table["best_by_budget"]:
                best, vote = row["best"], row["best_vote"]
                cells = [str(row["budget"]), _name(best), f"{best['score']:.3f}"]
                cells += [_name(vote), f"{vote['score']:.3f}"] if vote else ["", ""]
                parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _name(point: Point) -> str:
    return f"{point['model']}/{point['strategy']}/{point['samples']}"


def figure(recorded: dict[str, Any], path: Path) -> None:
    """Accuracy over FLOPs of stage solve at the last temperature, one line a strategy."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    table = [t for t in recorded["tables"] if t["stage"] == "solve"][-1]
    chart = go.Figure()
    names = dict.fromkeys((p["model"], p["strategy"]) for p in table["points"])
    for place, (model, strategy) in enumerate(names):
        own = [p for p in table["points"] if (p["model"], p["strategy"]) == (model, strategy)]
        if model == "s" and strategy != "vote":
            own = [next(p for p in table["points"] if p["strategy"] == "vote" and p["samples"] == 1), *own]
        line = {
            "width": 4 if strategy == "vote" else 2,
            "color": qualitative.Dark24[place % 24],
            "dash": ("solid", "dash", "dot")[place % 3] if strategy != "vote" else "solid",
        }
        chart.add_scatter(
            x=[p["mflops"] for p in own], y=[p["score"] for p in own], mode="lines+markers",
            name=f"{model} {strategy}", line=line,
        )  # fmt: skip
    chart.update_layout(
        title=f"Stage solve, T = {table['temperature']}: accuracy over compute, {recorded['examples']} examples",
        xaxis={"title": "MFLOPs per query", "type": "log"}, yaxis={"title": "exact match"}, template="plotly_white",
        width=1100, height=700,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    chart.write_html(path, config={"displayModeBar": False})


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--markdown", action="store_true", help="print the recorded run as tables")
    parser.add_argument("--figure", type=Path, help="write the recorded run's plot as HTML")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(json.loads(RESULT.read_text())))
    elif options.figure:
        figure(json.loads(RESULT.read_text()), options.figure)
    else:
        result = asyncio.run(run(options.examples))
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
