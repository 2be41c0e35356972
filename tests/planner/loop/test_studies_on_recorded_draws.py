"""Whole studies on recorded draws: no model is called, and what was not recorded is never made up."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from env.backends.replay_address import address_template
from env.backends.replay_import import import_qwen3
from env.errors import ApportionError
from env.spec import SpecError, StudySpec
from env.spec.load import load_spec, validated_spec
from planner.archive import open_archive
from planner.run import run_study
from tests.env.backends.pools import SHARED, a_draw, needs_qwen3, write_rows

EXAMPLES = [f"e{n}" for n in range(24)]
RIGHT = {"small": 0.5, "large": 0.9}
DRAWS = 8


def record(folder: Path) -> None:
    """A pool of two stages: `solve` repeats what `find` found, unless it slips; both models on every upstream."""
    rng = random.Random(3)
    rows = []
    for number, example in enumerate(EXAMPLES):
        for model, chance in RIGHT.items():
            for draw in range(DRAWS):
                found = f"{number}" if rng.random() < chance else f"{number + 100}"
                rows.append(a_draw(draw, found, stage="find", model=model, example=example))
                for upstream in (f"{number}", f"{number + 100}"):
                    answer = upstream if rng.random() < chance else "slip"
                    rows.append(a_draw(draw, answer, model=model, example=example, upstream=[f'"{upstream}"']))
    write_rows(folder / "pool.parquet", rows)
    with (folder / "gold.csv").open("w", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(["example", "answer", "question"])
        table.writerows([example, number, f"What is {number}?"] for number, example in enumerate(EXAMPLES))


def raw_spec() -> dict[str, Any]:
    models = {
        name: {"backend": "replay", "path": "pool.parquet", "model": name, "parameters": size}
        for name, size in (("small", 1e9), ("large", 8e9))
    }
    stages = [
        {
            "name": name,
            "prompt": [
                {"role": "system", "template": "{{ question }}"},
                {"role": "user", "template": address_template(name, upstream)},
            ],
            "models": ["small", "large"],
            "samples": {"min": 1, "max": DRAWS},
            "tokens": {"prompt": 20, "output": 100},
        }
        for name, upstream in (("find", []), ("solve", ["find"]))
    ]
    return {
        "name": "recorded",
        "pipeline": {"name": "recorded", "models": models, "stages": stages},
        "data": {"source": "pool", "gold": "gold.csv", "search": 12, "test": 12},
        "budget": {"plan": {"limit": 1e13}, "search": {"trials": 10}},
        "proposer": {"kind": "insight", "batch": 3},
    }


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    record(tmp_path)
    return tmp_path


@pytest.mark.asyncio
async def test_a_study_over_recorded_draws_ends_with_a_tested_plan(root: Path) -> None:
    with open_archive(f"sqlite:///{root / 'archive.db'}") as archive:
        plan = await run_study(validated_spec(raw_spec()), archive, "s1", {})
        trials = archive.trials.list("s1", "search")
        assert all(e.status == "scored" for t in trials for e in archive.trials.evidence("s1", t.trial_no))
    assert plan.test_score is not None
    assert plan.test_score.examples == 12
    # 8 draws of the large model at both stages are nearly always right; one of the small one is right in a quarter.
    assert plan.test_score.estimate > 0.7


@pytest.mark.asyncio
async def test_upstream_answers_nobody_recorded_fail_their_examples_with_the_reason(root: Path) -> None:
    rows = [a_draw(d, "novel", stage="find", model=m, example=e) for m in RIGHT for e in EXAMPLES for d in range(DRAWS)]
    rows += [a_draw(d, model=m, example=e, upstream=['"x"']) for m in RIGHT for e in EXAMPLES for d in range(DRAWS)]
    write_rows(root / "pool.parquet", rows)
    with open_archive(f"sqlite:///{root / 'archive.db'}") as archive:
        with pytest.raises(ApportionError, match="no trial could be scored"):
            await run_study(validated_spec(raw_spec()), archive, "s1", {})
        evidence = archive.trials.evidence("s1", archive.trials.list("s1", "search")[0].trial_no)
    assert {e.status for e in evidence} == {"failed"}
    assert "0 draws of it are held (1 other upstream answers of this example are)" in evidence[0].reason


def small(raw: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = raw["pipeline"]["models"]["small"]
    return found


def stage(raw: dict[str, Any], position: int) -> dict[str, Any]:
    found: dict[str, Any] = raw["pipeline"]["stages"][position]
    return found


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        (lambda r: small(r).update(path="absent.parquet"), "pipeline.models.small.path", "cannot be read"),
        (lambda r: small(r).update(path="gold.csv"), "pipeline.models.small.path", "not a readable Parquet file"),
        (lambda r: small(r).update(path="../x.parquet"), "pipeline.models.small.path", "outside the data root"),
        (
            lambda r: small(r).update(model="tiny"),
            "pipeline.models.small.model",
            "holds no draws of 'tiny'; it has large",
        ),
        (lambda r: r["data"].update(gold="absent.csv"), "data.gold", "no such file"),
        (lambda r: r["data"].update(gold="../gold.csv"), "data.gold", "outside the data root"),
        (lambda r: r["data"].update(gold="pool.parquet"), "data.gold", "two rows have the same example"),
        (
            lambda r: stage(r, 0)["prompt"][1].update(template="{{ question }}"),
            "pipeline.stages[0].prompt[1].template",
            "must be a JSON object like",
        ),
        (
            lambda r: stage(r, 0)["prompt"][1].update(template=address_template("seek")),
            "pipeline.stages[0].models[0]",
            "holds no draws of 'small' at stage 'seek'; it has find, solve",
        ),
        (lambda r: stage(r, 0)["samples"].update(max=9), "pipeline.stages[0].samples", "has 8"),
        (lambda r: stage(r, 1).update(max_tokens=99), "pipeline.stages[1].max_tokens", "100 or more is answered"),
        (lambda r: stage(r, 1).update(stop=["x"]), "pipeline.stages[1].stop", "leave it out"),
        (
            lambda r: stage(r, 1).update(strategies=["best_of_n"], verifier="small"),
            "pipeline.stages[1].verifier",
            "holds no scores",
        ),
    ],
)
def test_a_fault_of_a_replayed_study_names_its_field(
    root: Path, change: Callable[[dict[str, Any]], None], path: str, words: str
) -> None:
    raw = raw_spec()
    change(raw)
    with pytest.raises(SpecError) as caught:
        validated_spec(raw)
    found = {fault.path: fault.message for fault in caught.value.faults}
    assert path in found
    assert words in found[path]


def test_an_example_nobody_recorded_is_a_fault(root: Path) -> None:
    with (root / "gold.csv").open("a") as lines:
        lines.write("unheard,7,What?\n")
    with pytest.raises(SpecError, match="for 1 examples of the study, first stage 'find', example 'unheard'"):
        validated_spec({**raw_spec(), "data": {"source": "pool", "gold": "gold.csv", "search": 12, "test": 13}})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("example,answer\ne0,1\ne0,2\n", "two rows have the same example"),
        ("example,answer\ne0,\ne1,2\n", "row 1: answer is empty"),
        ("example,answer,split\ne0,1,train\n", "split is 'train'"),
        ("example,answer,split\ne0,1,test\n", "no row 'search'"),
        ("example,answer\n", "holds no examples"),
        ("example,answer\ne0\n", "not as many values"),
    ],
)
def test_an_unsound_gold_table_is_a_fault(root: Path, table: str, words: str) -> None:
    (root / "gold.csv").write_text(table)
    with pytest.raises(SpecError, match=words):
        validated_spec(raw_spec())


@needs_qwen3
@pytest.mark.asyncio
async def test_the_example_study_runs_over_the_recorded_qwen3_pools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SHARED / "qwen3_math"
    import_qwen3(folder / "qwen3_aime_pools.parquet", folder / "qwen3_aime_questions.parquet", tmp_path)
    monkeypatch.setenv("APPORTION_DATA_ROOT", str(tmp_path))
    spec: StudySpec = load_spec(Path(__file__).parents[3] / "examples" / "qwen3_replay.yaml")
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as archive:
        plan = await run_study(spec, archive, "s1", {})
        searched = {e.example_id for e in archive.trials.evidence("s1", 1)}
    assert {example.split("-")[0] for example in searched} == {"aime24"}
    assert plan.test_score is not None
    assert plan.test_score.examples == 30
    assert plan.predicted_cost <= plan.budget
