"""Builds an archive as years of use leave it: one long study, a thousand others, and a million draws."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert

from api.demo import demo_spec
from env.allocation import Allocation
from env.backends import Draw, ModelIdentity
from env.spec import StudySpec
from planner.archive import Archive
from planner.archive.numbering import insert_tuples
from planner.archive.pipelines import pipeline_digest
from planner.archive.schedule_records import SchedulePlan
from planner.archive.tables import (
    EventRow,
    EvidenceRow,
    GuidelineRow,
    LedgerRow,
    PlanRow,
    ProposalRow,
    ScheduleRunRow,
    StudyRow,
    TrialRow,
    table_of,
)
from planner.inspection import known_examples
from planner.space import SearchSpace

LONG = "a" * 12
"""Id of the study with many trials."""

EXAMPLES = 50
BATCH = 4
DRAWS_A_PROMPT = 16
OTHER_STUDIES = 1_000
SCHEDULES = 50
RUNS = 500
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = ("embedded:xs", "embedded:s", "embedded:m", "embedded:l")


def build(archive: Archive, draws: int, trials: int) -> None:
    """Fill an empty archive.

    Args:
        archive: migrated.
        draws: in the sample bank.
        trials: of the long study, each on 50 examples.
    """
    rng = random.Random(0)
    spec = wide_spec()
    with archive.engine.begin() as connection:
        connection.execute(insert(table_of(StudyRow)), [_study(LONG, "long", spec, 0)])
    prompts = _draws(archive, draws, rng)
    _trials(archive, spec, trials, prompts, rng)
    _others(archive, spec, rng)
    _schedules(archive, spec)
    with archive.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def wide_spec() -> StudySpec:
    """The bundled demo with a budget that 17,198 allocations meet."""
    raw = demo_spec().model_dump(mode="json")
    raw["budget"]["plan"]["limit"] = 1e9
    return StudySpec.model_validate(raw)


def _study(id: str, name: str, spec: StudySpec, number: int, status: str = "done") -> dict[str, Any]:
    raw = spec.model_dump(mode="json")
    made = MOMENT + timedelta(minutes=number)
    ended = made + timedelta(hours=1) if status in ("done", "failed", "cancelled") else None
    row = StudyRow(
        id=id, name=name, spec=raw, status=status, proposer="insight", seed=number, created_at=made, started_at=made,
        finished_at=ended, phase="conclude", round=number % 40, error="", cancel_requested=False,
        notes="nothing of note " * (number % 5), pipeline_digest=pipeline_digest(raw),
    )  # fmt: skip
    return row.model_dump()


def _draws(archive: Archive, draws: int, rng: random.Random) -> list[str]:
    """Store the draws; the keys of their prompts."""
    keys = [hashlib.sha256(f"prompt {n}".encode()).hexdigest() for n in range(max(1, draws // DRAWS_A_PROMPT))]
    for start in range(0, len(keys), 1250):
        model = ModelIdentity(MODELS[start // 1250 % len(MODELS)], "0f" * 32)
        part = keys[start : start + 1250]
        archive.bank.settle(model, {key: _some(rng, draws // 4, start) for key in part})
    return keys


def _some(rng: random.Random, variety: int, round_: int) -> list[Draw]:
    origin = f"{LONG}/round-{round_}"
    return [
        Draw(
            i,
            f"Mia has {rng.randrange(max(1, variety))} coins = {rng.randrange(99)}",
            "stop",
            120,
            17,
            -1.5,
            None,
            origin,
        )
        for i in range(DRAWS_A_PROMPT)
    ]


def _trials(archive: Archive, spec: StudySpec, count: int, prompts: list[str], rng: random.Random) -> None:
    """The long study's trials with all that stands around them."""
    space = SearchSpace(spec)
    allocations = space.sample(rng, count)
    assert len(allocations) == count, f"the space has no {count} allocations"
    examples = list(known_examples(spec.data))[:EXAMPLES]
    for start in range(0, len(allocations), 200):
        part = list(enumerate(allocations[start : start + 200], start + 1))
        with archive.engine.begin() as connection:
            rows = [_trial(number, allocation, space, rng) for number, allocation in part]
            connection.execute(insert(table_of(TrialRow)), rows)
            columns = ["study_id", "trial_no", "example_id", "position", "status", "score", "realised", "reason"]
            evidence = [one for n, a in part for one in _evidence(n, a, examples, prompts, space.total(a), rng)]
            insert_tuples(connection, EvidenceRow, [*columns, "cost", "stages", "curves"], evidence)
            _around(connection, part, space, rng)


def _trial(number: int, allocation: Allocation, space: SearchSpace, rng: random.Random) -> dict[str, Any]:
    cost, score = space.total(allocation), rng.betavariate(6, 4)
    curves = {
        stage: [
            {"k": k, "score": score * (1 - 0.3 / k), "coverage": 1.0, "draws": k * EXAMPLES, "standard_error": 0.05}
            for k in range(1, setting.samples + 1)
        ]
        for stage, setting in allocation.settings
    }
    return TrialRow(
        study_id=LONG, trial_no=number, split="search", round=(number - 1) // BATCH, allocation=allocation.to_json(),
        allocation_key=str(allocation), status="done", score=score, standard_error=0.05, scored=EXAMPLES - 1, failed=1,
        predicted_cost=cost, measured_cost=cost * rng.uniform(0.8, 1.2), unit=space.unit, new_draws=100,
        reused_draws=900, prompt_tokens=12_000, output_tokens=1_700, spend_cost=cost, seconds=2.0, load_seconds=0.1,
        curves=curves, draws=800, stage_scores={"retrieve": score}, examples_planned=EXAMPLES,
        created_at=MOMENT + timedelta(seconds=number),
    ).model_dump()  # fmt: skip


def _evidence(
    number: int, allocation: Allocation, examples: list[str], prompts: list[str], cost: float, rng: random.Random
) -> Iterator[tuple[Any, ...]]:
    for place, example in enumerate(examples):
        failed = place == 7
        score = None if failed else round(rng.betavariate(6, 4), 6)
        stages = [
            {
                "stage": stage, "answer": f'"{rng.randrange(99)}"', "prompt_key": prompts[rng.randrange(len(prompts))],
                "samples": s.samples, "held": DRAWS_A_PROMPT, "prompt_tokens": 120, "output_tokens": 17 * s.samples,
                "score": score, "calls": [],
            }
            for stage, s in allocation.settings
        ]  # fmt: skip
        curves = {
            stage: [[k, (score or 0.0) * (1 - 0.3 / k), 1.0, k] for k in range(1, s.samples + 1)]
            for stage, s in allocation.settings
        }
        yield (
            LONG, number, example, place, "failed" if failed else "scored", score,
            None if score is None else float(score > 0.5), "the server was gone" if failed else "", cost,
            json.dumps([] if failed else stages), json.dumps({} if failed else curves),
        )  # fmt: skip


def _around(connection: Connection, part: list[tuple[int, Allocation]], space: SearchSpace, rng: random.Random) -> None:
    """Proposals with what the LLM was asked, guidelines, ledger entries and events of these trials."""
    units = {"search": "draws", "search_tokens": "tokens", "search_flops": "FLOPs"}
    entries, proposals, guidelines, events = [], [], [], []
    for number, allocation in part:
        round_, place = divmod(number - 1, BATCH)
        made = MOMENT + timedelta(seconds=number)
        common = {"study_id": LONG, "created_at": made}
        llm = {"llm_model": "planner", "tokens_in": 0, "tokens_out": 0, "call": {}}
        for attempt, verdict in enumerate(["refused", "accepted"] if number % 10 == 0 else ["accepted"]):
            proposals.append(
                ProposalRow(
                    **common,
                    **llm,
                    round=round_,
                    attempt=attempt,
                    position=place,
                    allocation=allocation.to_json(),
                    allocation_key=str(allocation),
                    origin="agent",
                    reason="more samples where the curve still rises " * 3,
                    expected_score=0.6,
                    verdict=verdict,
                    verdict_reason="tried before" if verdict == "refused" else "",
                ).model_dump()
            )
        if place == 0:
            asked = {**llm, "tokens_in": 2_000, "tokens_out": 300}
            call = ProposalRow(
                **common, **asked, round=round_, attempt=0, position=BATCH, allocation_key="", origin="call", reason="",
                verdict="accepted", verdict_reason="", prompt="what was tried so far: " * 350, reply="{} " * 300,
            )  # fmt: skip
            proposals.append(call.model_dump())
            guidelines += [
                GuidelineRow(
                    **common, round=round_, position=i, insight=1 + i % 3, stage=allocation.stages[i % 3],
                    text=f"guideline {i}: stage {i % 3} gains little beyond {rng.randrange(1, 16)} samples",
                    structured={"knee": rng.randrange(1, 16)},
                ).model_dump()
                for i in range(7)
            ]  # fmt: skip
            events.append({**common, "event_key": f"phase-{round_}", "kind": "phase", "payload": {"round": round_}})
        entries += [
            LedgerRow(
                **common, ledger=ledger, entry_key=f"trial-{number}", unit=unit, reserved=1000.0, settled=500.0,
                settled_at=made,
            ).model_dump()
            for ledger, unit in units.items()
        ]  # fmt: skip
        events += [
            {**common, "event_key": None, "kind": "progress", "payload": {"trial": number, "draws": 400 * i}}
            for i in range(3)
        ]
        told = {"trial": number, "score": 0.6, "allocation": allocation.to_json()}
        events.append({**common, "event_key": f"trial-{number}", "kind": "trial", "payload": told})
    for row, rows in ((ProposalRow, proposals), (GuidelineRow, guidelines), (LedgerRow, entries), (EventRow, events)):
        connection.execute(insert(table_of(row)), rows)


def _others(archive: Archive, spec: StudySpec, rng: random.Random) -> None:
    """A thousand studies beside it, most with a plan of each kind, and one plan of the long one."""
    statuses = ("done", "done", "done", "failed", "cancelled")
    space = SearchSpace(spec)
    allocations = space.sample(rng, OTHER_STUDIES)
    studies, plans, entries = [], [], []
    for number, allocation in enumerate(allocations, 1):
        id, status = hashlib.sha256(f"study {number}".encode()).hexdigest()[:12], statuses[number % len(statuses)]
        studies.append(_study(id, f"nightly-{number % 40}", spec, number, status))
        entries += [
            LedgerRow(
                study_id=id, ledger="search", entry_key=f"trial-{n}", unit="draws", reserved=10.0, settled=8.0,
                created_at=MOMENT,
            ).model_dump()
            for n in range(20)
        ]  # fmt: skip
        if status == "done":
            plans += [_plan(id, kind, allocation, space, number) for kind in ("chosen", "best")]
    plans += [_plan(LONG, kind, allocations[0], space, 0) for kind in ("chosen", "best")]
    with archive.engine.begin() as connection:
        for row, rows in ((StudyRow, studies), (PlanRow, plans), (LedgerRow, entries)):
            connection.execute(insert(table_of(row)), rows)
    for number, study in enumerate(studies[:200]):
        if study["status"] == "done":
            archive.promotions.promote(f"name-{number}", study["id"], "chosen", "loopback")


def _plan(study_id: str, kind: str, allocation: Allocation, space: SearchSpace, number: int) -> dict[str, Any]:
    cost = space.total(allocation)
    interval = {"estimate": 0.6, "low": 0.5, "high": 0.7, "standard_error": 0.05, "examples": 400, "method": "wilson"}
    rival = {
        "label": "one sample of the largest model", "allocation": allocation.to_json(), "predicted_cost": cost,
        "score": interval, "difference": interval, "verdict": "better", "p_value": 0.01, "test": "paired t",
        "words": "The plan scores higher.",
    }  # fmt: skip
    stages = [
        {"stage": stage, "model": s.model, "strategy": s.strategy, "samples": s.samples, "predicted_cost": cost / 3,
         "why": "more samples gain less than their error"}
        for stage, s in allocation.settings
    ]  # fmt: skip
    front = [
        {"trial_no": n, "allocation": allocation.to_json(), "predicted_cost": cost * n / 20, "score": 0.4 + n / 100}
        for n in range(1, 21)
    ]
    document = {
        "version": 1, "kind": kind, "allocation": allocation.to_json(), "stages": stages, "unit": space.unit,
        "predicted_cost": cost, "measured_cost": cost, "budget": 3.6e8, "search_score": 0.62, "search_examples": 400,
        "test_score": interval, "rivals": [rival] * 3, "pareto": front,
        "guidelines": [{"insight": 1, "stage": None, "text": "larger models for the last stage"}] * 7,
        "ledgers": [{"ledger": "search", "spent": 1000.0, "unit": "draws", "limit": 32.0}],
        "stopped": "the budget of trials was spent", "trials": 32, "refused": 2, "explanation": "It is cheapest. " * 20,
        "provenance": {
            "study_id": study_id, "study": "nightly", "spec_sha256": "0" * 64, "seed": 0, "proposer": "insight",
            "models": dict.fromkeys(MODELS, "0f" * 32), "apportion": "1",
        },
    }  # fmt: skip
    made = MOMENT + timedelta(minutes=number, seconds=59)
    row = PlanRow(study_id=study_id, kind=kind, allocation=allocation.to_json(), document=document, created_at=made)
    return row.model_dump()


def _schedules(archive: Archive, spec: StudySpec) -> None:
    """Paused ones, so that nothing runs; the first has run often."""
    for number in range(SCHEDULES):
        name = f"schedule-{number:02}"
        archive.schedules.create(name, SchedulePlan(spec.model_dump(mode="json"), cron="0 3 * * *"))
        archive.schedules.set_paused(name, True)
    runs = [
        ScheduleRunRow(
            id=f"run-{number:012}", schedule_name="schedule-00", number=number, due=MOMENT + timedelta(days=number),
            cause="cron", status="ended", outcome="revalidated", reason="the plan holds", cancel_requested=False,
            seed=number, created_at=MOMENT + timedelta(days=number),
        ).model_dump()
        for number in range(RUNS)
    ]  # fmt: skip
    with archive.engine.begin() as connection:
        connection.execute(insert(table_of(ScheduleRunRow)), runs)
