"""Evaluates every allocation of the demo's space, and holds the demo's plan against the best of them.

    python -m benchmarks.demo_exhaustive run      # every allocation: tens of minutes on two cores; writes the table
    python -m benchmarks.demo_exhaustive compare  # a demo run against the recorded table, as JSON

Outcome distributions of each stage (from as many draws as the stage's largest k) are propagated through the next
stages, each distinct upstream outcome drawn for on its own. Outcomes rarer than `LEAST_PROBABILITY` are left out and
the rest rescaled. The last stage is not drawn for expressions whose value is not the answer: a solver can only be right
there by a mistake that cancels another one. They count as score 0; some are drawn to show how much that leaves out.
The draws an exhaustive run needs count them all. The seed differs from the demo's, so that a plan gains nothing from
having been chosen on the same draws.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api.demo import demo_spec
from env.allocation import Allocation, StageSetting
from env.backends import Message
from env.backends.pool import BackendPool
from env.bank import MemorySampleBank, PromptKey
from env.embedded.ledger import balances
from env.execution import Environment
from env.execution.drawing import Drawing, key_of, score_key_of
from env.execution.estimates import answer_variable
from env.execution.progress import Progress
from env.spec import StageSpec, StudySpec
from env.strategies import STRATEGIES, Candidate, StagePlan
from env.tasks.data import load_splits
from env.tasks.example import Example, JsonValue
from env.tasks.parsers import from_canonical
from planner.bench.table import read_table
from planner.space import SearchSpace

LEAST_PROBABILITY = 0.04
TABLE_SEED = 1000
EXAMPLES = 200
"""Of the search split; the demo looks at some more."""

AUDITED = 400
"""Hopeless prompts drawn all the same, to see how often they come out right."""
RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "demo_exhaustive.csv.gz"
SUMMARY = RESULTS / "demo_exhaustive.json"

Answers = tuple[str | None, ...]
"""Aggregated answers of the stages so far."""


@dataclass(frozen=True)
class Node:
    """One example with given upstream answers."""

    example_id: str
    upstream: Answers
    example: Example = field(compare=False)


def node_of(example: Example, upstream: Answers) -> Node:
    """A node; two of them are one where example and answers are the same."""
    return Node(example.id, upstream, example)


class Exhaustive:
    """Draws for every distinct path of the space and multiplies the distributions out."""

    def __init__(self, spec: StudySpec, examples: Sequence[Example], seed: int) -> None:
        self.spec = spec
        self.space = SearchSpace(spec)
        self.examples = examples
        self.bank = MemorySampleBank()
        self.backends = BackendPool(spec.pipeline.models)
        self.environment = Environment(spec.pipeline, spec.budget.plan.unit, self.bank, self.backends, seed)
        self.drawing = Drawing(self.bank, self.backends, "exhaustive", _report)
        self.draws = 0
        self.skipped = 0
        self.audit = 0.0

    def settings(self, stage: StageSpec) -> tuple[StageSetting, ...]:
        """The stage's feasible settings, in the order of the table's axes."""
        return self.space.settings[stage.name]

    async def table(self) -> NDArray[np.float64]:
        """Mean score of every combination of settings, shape (settings of stage 1, of stage 2, ...)."""
        levels: list[dict[Node, dict[StageSetting, dict[str | None, float]]]] = []
        nodes = [node_of(example, ()) for example in self.examples]
        for stage in self.spec.pipeline.stages:
            print(f"{stage.name}: {len(nodes)} distinct prompts", file=sys.stderr, flush=True)
            hopeless: list[Node] = []
            if stage is self.spec.pipeline.stages[-1]:
                hopeless = [node for node in nodes if not can_be_right(node)]
                nodes = [node for node in nodes if can_be_right(node)]
                await self._audit(stage, hopeless)
            level = await self._distributions(stage, nodes)
            level.update((node, {setting: {None: 1.0} for setting in self.settings(stage)}) for node in hopeless)
            levels.append(level)
            reached = {
                node_of(node.example, (*node.upstream, answer)): None
                for node, by_setting in level.items()
                for distribution in by_setting.values()
                for answer in distribution
            }
            nodes = list(reached)
        total = sum(self._example_table(example, levels) for example in self.examples)
        await self.backends.close()
        return np.asarray(total) / len(self.examples)

    async def _audit(self, stage: StageSpec, hopeless: Sequence[Node]) -> None:
        """Draw some of the prompts that are left out, and count what drawing all of them would have taken."""
        largest = {m: max(s.samples for s in self.settings(stage) if s.model == m) for m in stage.models}
        self.skipped = len(hopeless) * sum(largest.values())
        chosen = random.Random(TABLE_SEED).sample(list(hopeless), min(AUDITED, len(hopeless)))
        drawn, before = await self._distributions(stage, chosen), self.draws
        self.draws = before - sum(largest.values()) * len(chosen)
        scores = [
            sum(p * self.environment.score_answer(a, node.example) for a, p in outcomes.items())
            for node, by_setting in drawn.items()
            for outcomes in by_setting.values()
        ]
        self.audit = sum(scores) / max(1, len(scores))

    async def _distributions(
        self, stage: StageSpec, nodes: Sequence[Node]
    ) -> dict[Node, dict[StageSetting, dict[str | None, float]]]:
        settings = self.settings(stage)
        most = {m: max(s.samples for s in settings if s.model == m) for m in {s.model for s in settings}}
        needs, keys = {}, {}
        for node, model in product(nodes, most):
            need = self.environment.need(
                stage, StageSetting(model, stage.strategies[0], most[model]), most[model], self._variables(node)
            )
            key = key_of(self.backends, need)
            keys[node, model] = key
            needs[key] = need
        filled = await self.drawing.fill(stage.name, needs)
        if filled.failures:
            raise SystemExit(f"{len(filled.failures)} prompts failed: {next(iter(filled.failures.values()))}")
        self.draws += sum(len(d) for d in filled.draws.values())
        candidates = {
            key: tuple(Candidate(self.environment.read(stage, d.text), None, d.logprob, d.output_tokens) for d in draws)
            for key, draws in filled.draws.items()
        }
        if stage.verifier is not None and any("verifier" in STRATEGIES[s.strategy].requires for s in settings):
            candidates = await self._scored(stage, {k: needs[k].messages for k in candidates}, candidates)
        last = stage is self.spec.pipeline.stages[-1]
        memo: dict[tuple[PromptKey, StageSetting], dict[str | None, float]] = {}
        result: dict[Node, dict[StageSetting, dict[str | None, float]]] = {}
        for node in nodes:
            result[node] = {}
            for setting in settings:
                key = keys[node, setting.model]
                if (key, setting) not in memo:
                    plan = StagePlan(stage, setting)
                    found = STRATEGIES[setting.strategy].outcomes(plan, candidates[key], setting.samples)
                    if found is None:
                        raise SystemExit(f"{setting.strategy} has no outcomes over subsets; the table cannot hold it")
                    memo[key, setting] = dict(found) if last else _frequent(found)
                result[node][setting] = memo[key, setting]
        return result

    async def _scored(
        self,
        stage: StageSpec,
        prompts: Mapping[PromptKey, tuple[Message, ...]],
        candidates: Mapping[PromptKey, tuple[Candidate, ...]],
    ) -> dict[PromptKey, tuple[Candidate, ...]]:
        assert stage.verifier is not None
        judged: dict[PromptKey, tuple[Message, ...]] = {}
        order: dict[PromptKey, list[PromptKey]] = {}
        held = self.bank.held(list(candidates))
        for key in candidates:
            messages = [(*prompts[key], Message("assistant", draw.text)) for draw in held[key]]
            order[key] = [score_key_of(self.backends, stage.verifier, m) for m in messages]
            judged.update(zip(order[key], messages, strict=True))
        scores = await self.drawing.fill_scores(stage.name, stage.verifier, judged)
        return {
            key: tuple(
                replace(c, score=scores.draws[k][0].score) for c, k in zip(candidates[key], order[key], strict=True)
            )
            for key in candidates
        }

    def _variables(self, node: Node) -> dict[str, JsonValue]:
        variables: dict[str, JsonValue] = dict(node.example.fields)
        for stage, answer in zip(self.spec.pipeline.stages, node.upstream, strict=False):
            variables[stage.name] = answer_variable(stage, answer)
        return variables

    def _example_table(
        self, example: Example, levels: Sequence[Mapping[Node, Mapping[StageSetting, Mapping[str | None, float]]]]
    ) -> NDArray[np.float64]:
        """Expected score of one example at every combination of settings."""

        def below(position: int, upstream: Answers) -> NDArray[np.float64]:
            by_setting = levels[position][node_of(example, upstream)]
            stage = self.spec.pipeline.stages[position]
            last = position == len(levels) - 1
            values: dict[str | None, Any] = {}
            rows = []
            for setting in self.settings(stage):
                row: Any = 0.0
                for answer, probability in by_setting[setting].items():
                    if answer not in values:
                        values[answer] = (
                            self.environment.score_answer(answer, example)
                            if last
                            else below(position + 1, (*upstream, answer))
                        )
                    row = row + probability * values[answer]
                rows.append(row)
            return np.array(rows)

        return below(0, ())


def can_be_right(node: Node) -> bool:
    """Whether the expression read is worth the right answer."""
    expression = from_canonical(node.upstream[-1])
    try:
        return balances(str(expression))[-1] == int(node.example.answers[0])
    except (ValueError, IndexError):
        return False


def _frequent(outcomes: Mapping[str | None, float]) -> dict[str | None, float]:
    kept = {a: p for a, p in outcomes.items() if p >= LEAST_PROBABILITY}
    kept = kept or {max(outcomes, key=outcomes.__getitem__): 1.0}
    total = sum(kept.values())
    return {a: p / total for a, p in kept.items()}


def _report(progress: Progress) -> None:
    print(
        f"  {progress.stage} {progress.model}: {progress.done}/{progress.total} prompts, "
        f"{progress.draws / max(progress.seconds, 1e-9):,.0f} draws/s",
        file=sys.stderr,
        flush=True,
    )


async def run() -> dict[str, Any]:
    """Evaluate everything and write the table and its summary."""
    spec = demo_spec()
    started = time.monotonic()
    work = Exhaustive(spec, load_splits(spec.data).search[:EXAMPLES], TABLE_SEED)
    table = await work.table()
    stages = spec.pipeline.stages
    axes = [work.settings(stage) for stage in stages]
    rows: list[tuple[Allocation, float, float]] = []
    for place in np.ndindex(*table.shape):
        allocation = Allocation.of({s.name: axes[i][place[i]] for i, s in enumerate(stages)})
        cost = work.space.total(allocation)
        if cost <= spec.budget.plan.limit:
            rows.append((allocation, float(table[place]), cost))
    rows.sort(key=lambda row: (-row[1], row[2]))
    RESULTS.mkdir(exist_ok=True)
    with gzip.GzipFile(TABLE, "wb", mtime=0) as packed:
        packed.write(_csv(rows).encode())
    summary = {
        "benchmark": "demo_exhaustive",
        "examples": len(work.examples),
        "unit": work.space.unit,
        "budget": spec.budget.plan.limit,
        "allocations": len(rows),
        "draws": work.draws + work.skipped,
        "draws_made": work.draws,
        "mean_score_of_audited_hopeless_prompts": round(work.audit, 5),
        "seconds": round(time.monotonic() - started, 1),
        "best": _row(rows[0]),
        "within_0.01_of_best": sum(score >= rows[0][1] - 0.01 for _, score, _ in rows),
        "best_by_budget": _by_budget(rows, spec.budget.plan.limit),
    }
    SUMMARY.write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _csv(rows: Iterable[tuple[Allocation, float, float]]) -> str:
    """The format that `apportion bench search --table` reads."""
    lines: list[str] = []
    for allocation, score, cost in rows:
        if not lines:
            columns = [f"{stage}.{of}" for stage in allocation.stages for of in ("model", "strategy", "samples")]
            lines.append(",".join([*columns, "score", "cost"]))
        cells = [f"{s.model},{s.strategy},{s.samples}" for _, s in allocation.settings]
        lines.append(f"{','.join(cells)},{score:.5f},{cost:.6g}")
    return "\n".join(lines) + "\n"


def _row(row: tuple[Allocation, float, float]) -> dict[str, Any]:
    return {"allocation": str(row[0]), "score": round(row[1], 4), "cost": row[2]}


def _by_budget(rows: Sequence[tuple[Allocation, float, float]], limit: float) -> list[dict[str, Any]]:
    """The best allocation at fractions of the budget: how the split moves."""
    found = []
    for share in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0):
        within = [row for row in rows if row[2] <= share * limit]
        if within:
            found.append({"budget": share * limit, **_row(max(within, key=lambda row: (row[1], -row[2])))})
    return found


def recorded_table() -> dict[str, tuple[float, float]]:
    """Score and cost by allocation, from the recorded run.

    Raises:
        TableError: it was never run here.
    """
    return {str(row.allocation): (row.score, row.cost) for row in read_table(TABLE).rows}


def compare(report: Path) -> dict[str, Any]:
    """A demo's plan against the best of the recorded table.

    Args:
        report: report.json of a demo run.
    """
    data = json.loads(report.read_text())
    table, summary = recorded_table(), json.loads(SUMMARY.read_text())
    best = max(table.values())[0]
    draws = sum(trial["new_draws"] for trial in data["trials"])
    result = {"benchmark": "demo_against_exhaustive", "best_of_table": best, "exhaustive_draws": summary["draws"]}
    for kind, document in (("plan", data["plan"]), ("best_trial", data["best"])):
        allocation = str(Allocation.from_json(document["allocation"]))
        score, cost = table[allocation]
        result[kind] = {"allocation": allocation, "score": score, "regret": round(best - score, 5), "cost": cost}
    return {
        **result,
        "trials": len(data["trials"]),
        "search_draws": draws,
        "share_of_exhaustive_draws": round(draws / summary["draws"], 4),
    }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["run", "compare"])
    parser.add_argument("--report", type=Path, default=Path("out/demo/report.json"))
    options = parser.parse_args()
    print(json.dumps(asyncio.run(run()) if options.action == "run" else compare(options.report), indent=2))


if __name__ == "__main__":
    main()
