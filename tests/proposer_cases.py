"""Spaces, histories and an LLM that any proposer can be tried on."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence
from typing import Any

from env.allocation import Allocation
from planner.history import CurveEstimate, History, RefusedView, TrialView
from planner.proposers import Proposal, ProposerSetup
from planner.proposers.agent import LlmSettings
from planner.review import Verdict, review
from planner.space import SearchSpace
from tests.scripted_llm import Reply, Script, prompt_text
from tests.simulated import simulated_spec

QUALITY = {"small": 0.55, "medium": 0.75, "large": 0.85}


def stage(name: str, template: str = "{{ question }}", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "prompt": [{"role": "system", "template": name}, {"role": "user", "template": template}],
        "models": ["small", "large"],
        "samples": {"min": 1, "max": 16, "choices": [1, 2, 4, 8, 16]},
        "tokens": {"prompt": 20, "output": 10},
        **changes,
    }


def space_of(stages: Sequence[dict[str, Any]], limit: float) -> SearchSpace:
    spec = simulated_spec().model_dump(mode="json")
    models = {**spec["pipeline"]["models"], "medium": {**spec["pipeline"]["models"]["small"], "parameters": 3e9}}
    pipeline = {**spec["pipeline"], "models": models, "stages": list(stages)}
    return SearchSpace(simulated_spec(pipeline=pipeline, budget={"plan": {"limit": limit, "unit": "flops"}}))


ALL = ["small", "medium", "large"]
KNOBS = {"documents": [1, 3, 5], "temperature": [0.3, 0.8], "asc.threshold": [0.8, 0.95], "style": ["plain", "terse"]}
SPACES = {
    "three stages": SearchSpace(simulated_spec()),
    "one stage": space_of([stage("solve", models=ALL, samples={"min": 1, "max": 20})], 3e12),
    "four stages": space_of([stage(name, models=ALL) for name in ("plan", "find", "read", "solve")], 8e12),
    "strategies and knobs": space_of(
        [
            stage(
                "find",
                strategies=["vote", "asc", "likeliest"],
                knobs=KNOBS,
                tokens={"prompt": 20, "output": 10, "per": {"documents": 5}},
            ),
            stage("solve", strategies=["vote", "best_of_n"], verifier="judge", models=ALL),
        ],
        5e12,
    ),
}


def truth(allocation: Allocation) -> float:
    """Stages multiply; samples saturate; settings differ a little, so that no two allocations score alike."""
    value = 1.0
    for _, s in allocation.settings:
        quality = QUALITY[s.model] + (0.03 if s.strategy != "vote" and s.samples > 1 else 0.0)
        value *= 1 - (1 - quality) / math.sqrt(s.samples)
    noise = int.from_bytes(hashlib.sha256(str(allocation).encode()).digest()[:4], "big") / 2**32
    return value * 0.95 + 0.01 * noise


def trial(
    number: int, round_: int, allocation: Allocation, space: SearchSpace, score: float | None = None
) -> TrialView:
    value = truth(allocation) if score is None else score
    cost = space.total(allocation)
    curves = {
        name: tuple(
            CurveEstimate(k, truth(allocation.replace(name, s.with_samples(k))), 1.0)
            for k in space.pipeline.stage(name).samples.values()
            if k <= s.samples
        )
        for name, s in allocation.settings
    }
    return TrialView(number, round_, allocation, value, 0.02, cost, cost, 10, curves)


def grown(
    history: History, proposals: Sequence[Proposal], space: SearchSpace, room: int
) -> tuple[History, list[Verdict]]:
    """The history after review and execution of a batch, as the loop would leave it, in the next round."""
    verdicts = review(proposals, space, history.tried, room)
    trials = list(history.trials)
    for verdict in verdicts:
        if verdict.accepted and verdict.allocation is not None:
            trials.append(trial(len(trials) + 1, history.round, verdict.allocation, space))
    refused = [RefusedView(history.round, v.allocation, v.proposal.raw, v.reason) for v in verdicts if not v.accepted]
    return (
        History(history.round + 1, tuple(trials), (*history.refused, *refused), history.guidelines, 20),
        verdicts,
    )


def past(space: SearchSpace, trials: int, seed: int = 5) -> History:
    """A study after some trials, drawn at random."""
    drawn = space.sample(random.Random(seed), trials)
    return History(3, tuple(trial(i, i // 4, a, space) for i, a in enumerate(drawn, 1)), trials_left=20)


def exhausted(space: SearchSpace) -> History:
    return History(9, tuple(trial(i, i // 4, a, space) for i, a in enumerate(space.allocations(), 1)), trials_left=20)


def setup(space: SearchSpace, base_url: str | None = None, seed: int = 3, **changes: Any) -> ProposerSetup:
    """With an LLM where a URL is given; one that is not patient."""
    llm = None
    if base_url is not None:
        llm = LlmSettings("scripted", base_url, "sk-secret-0123", timeout_s=20.0, max_retries=0, backoff_s=0.01)
    return ProposerSetup(
        space, **{"seed": seed, "batch": 4, "task": "Answer questions about a ledger.", "llm": llm, **changes}
    )


def competent(space: SearchSpace) -> Script:
    """An LLM that names feasible allocations of a space and has something to say; equal prompts get equal answers."""

    def script(request: dict[str, Any], number: int) -> Reply:
        prompt = prompt_text(request)
        form = request.get("response_format", {}).get("json_schema", {}).get("name")
        asked = form or re.findall(r"^Reply name: (\w+)$", prompt, re.MULTILINE)[-1]
        if asked == "proposals":
            wanted = int(re.findall(r"^Allocations wanted: (\d+)$", prompt, re.MULTILINE)[-1])
            drawn = space.sample(random.Random(prompt), wanted)
            items = [{"allocation": strict(a, space), "reason": "a guess", "expected_score": 0.5} for a in drawn]
            return {"proposals": items}
        stages = [s.name for s in space.pipeline.stages]
        numbers = re.findall(r"log entries of the experiments ([\d, ]+):", prompt)
        trials = [int(n) for n in numbers[-1].split(",")] if numbers else [None] * len(stages)
        texts = [(stages[i % len(stages)], n) for i, n in enumerate(trials)]
        if asked == "notes":
            notes = [{"insight": 2, "stage": s, "trial": n, "text": f"{s}: more samples help"} for s, n in texts]
            return {"notes": notes}
        blank = dict.fromkeys(("preferred_model", "direction", "plateau", "shift_budget_from", "shift_budget_to"))
        return {"guidelines": [{"insight": 2, "stage": s, "text": "up", "structured": blank} for s in stages]}

    return script


def strict(allocation: Allocation, space: SearchSpace) -> dict[str, Any]:
    """As a strict schema wants it: every knob of a stage named, null where it means nothing."""
    written = allocation.to_json()
    for name, row in written.items():
        knobs = space.pipeline.stage(name).knobs
        if knobs:
            row["knobs"] = {**dict.fromkeys(knobs), **row.get("knobs", {})}
    return written
