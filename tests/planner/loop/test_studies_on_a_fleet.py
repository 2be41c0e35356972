"""Whole studies on the fleet's servers: loads apart from inference, engine knobs chosen, and a plan that names them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.command.output import trials_table
from api.schemas import TrialPublic
from env.fleet.load import FleetFile, load_fleet
from env.fleet.planning import serve_line
from env.fleet.shared import close_shared_fleets
from env.fleet.state import StateFile
from env.spec import StudySpec
from env.spec.load import validated_spec
from planner.archive import Archive, open_archive
from planner.loop.context import StudyContext
from planner.loop.engines import settle_engines
from planner.plans import PlanDocument
from planner.plans.report import write_report
from planner.run import run_study
from tests.env.fleet.fleets import room_for, torch_fleet

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="process trees are read from /proc"),
]

MODEL = {"memory": "1GiB", "overhead": "600MiB"}
QUANTISING = [sys.executable, str(Path(__file__).parents[2] / "env" / "fleet" / "quantising.py")]


def stage(name: str, user: str, model: str, parser: dict[str, Any], output: int) -> dict[str, Any]:
    return {
        "name": name,
        "prompt": [{"role": "system", "template": name}, {"role": "user", "template": user}],
        "parser": parser,
        "models": [model],
        "samples": {"min": 1, "max": 8, "choices": [1, 8]},
        "tokens": {"prompt": 60, "output": output},
        "max_tokens": 2 * output,
    }


RETRIEVE = "{% for sentence in story %}#{{ loop.index }} {{ sentence }} {% endfor %}ask {{ person }}"
READ = "{% for i in retrieve if 0 < i <= story | length %}{{ story[i - 1] }} {% endfor %}ask {{ person }}"


def study(models: dict[str, Any], *stages: dict[str, Any], trials: int) -> StudySpec:
    return validated_spec(
        {
            "name": "fleet",
            "pipeline": {"name": "p", "models": models, "stages": list(stages), "metric": "exact_match"},
            "data": {"source": "ledger", "search": 8, "test": 8},
            "budget": {"plan": {"limit": 1e12, "unit": "flops"}, "search": {"trials": trials}},
            "proposer": {"kind": "insight", "batch": 2},
        }
    )


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened
    close_shared_fleets()


def configured(file: FleetFile, monkeypatch: pytest.MonkeyPatch) -> FleetFile:
    file.path.write_text(yaml.safe_dump(file.spec.model_dump(mode="json", exclude_unset=True)))
    monkeypatch.setenv("APPORTION_FLEET", str(file.path))
    return load_fleet(file.path)


def exported(archive: Archive, folder: Path) -> FleetFile:
    """The fleet file beside the plan."""
    paths = write_report(archive, "one", folder)
    return load_fleet(next(path for path in paths if path.name == "fleet.yaml"))


@pytest.mark.asyncio
async def test_a_study_that_swaps_chooses_a_knob_by_speed_and_keeps_loads_apart(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = {"checkpoint": "embedded:xs", **MODEL, "search": {"max_num_seqs": [1, 64]}}
    models = {"xs": opened, "s": {"checkpoint": "embedded:s", **MODEL}}
    file = configured(torch_fleet(tmp_path, models=models, **room_for(1)), monkeypatch)
    spec = study(
        {
            "tiny": {"backend": "fleet", "model": "xs", "open": ["max_num_seqs"]},
            "small": {"backend": "fleet", "model": "s"},
        },
        stage("retrieve", RETRIEVE, "tiny", {"kind": "ids"}, 16),
        stage("read", READ, "small", {"kind": "text"}, 24),
        trials=3,
    )
    begun = time.monotonic()
    plan = await run_study(spec, archive, "one", {})
    elapsed = time.monotonic() - begun
    _the_faster_variant_serves_the_plan(plan, archive, tmp_path)
    _loads_are_in_no_seconds(archive, elapsed)
    await _a_resumed_study_measures_nothing(archive, file)


def _the_faster_variant_serves_the_plan(plan: PlanDocument, archive: Archive, folder: Path) -> None:
    tiny, small = plan.engines
    assert (tiny.model, tiny.served, tiny.knobs) == ("tiny", "xs@seqs64", {"max_num_seqs": 64})
    assert tiny.tokens_per_second["xs@seqs64"] > tiny.tokens_per_second["xs@seqs1"], "one row at a time is slower"
    assert "--max-rows 64" in tiny.command
    assert (small.served, small.knobs, small.tokens_per_second) == ("s", {}, {})
    served = exported(archive, folder / "out")
    assert list(served.spec.models) == ["xs", "s"]
    assert served.model("xs").max_num_seqs == 64
    assert "--max-rows 64" in serve_line(served, "xs")
    assert "xs@seqs64" in (folder / "out" / "plan.yaml").read_text()


def _loads_are_in_no_seconds(archive: Archive, elapsed: float) -> None:
    trials = archive.trials.list("one")
    loads = [trial.spend.load_seconds or 0.0 for trial in trials]
    assert sum(loads) > 2.0, "models that do not fit together were loaded in turns"
    assert sum(trial.spend.seconds for trial in trials) + sum(loads) < elapsed
    for trial in trials:
        timed = [e.seconds for e in archive.trials.evidence("one", trial.trial_no) if e.seconds is not None]
        assert sum(timed) < elapsed - sum(loads)
        assert TrialPublic.of(trial).load_seconds == trial.spend.load_seconds
    first = next(trial for trial in trials if trial.spend.load_seconds)
    assert f"{first.spend.load_seconds:.1f} s" in list(trials_table([TrialPublic.of(first)]).columns[-1].cells)


async def _a_resumed_study_measures_nothing(archive: Archive, file: FleetFile) -> None:
    close_shared_fleets()
    context = StudyContext(archive, "one", {})
    settled = await settle_engines(context)
    assert settled["tiny"]["variant"] == "xs@seqs64"
    assert StateFile(file.folder).read() is None, "no server was started"
    await context.close()


@pytest.mark.asyncio
async def test_quantised_variants_are_candidates_with_draws_of_their_own(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = {"quantisation": [None, "fp8"], "max_num_seqs": [1, 64]}
    models = {"s": {"checkpoint": "embedded:s", **MODEL, "dtype": "float32", "search": search}}
    configured(torch_fleet(tmp_path, models=models, engine="vllm", executable=QUANTISING, sleep="never"), monkeypatch)
    spec = study(
        {"small": {"backend": "fleet", "model": "s", "open": ["quantisation", "max_num_seqs"]}},
        stage("retrieve", RETRIEVE, "small", {"kind": "ids"}, 16),
        trials=4,
    )
    plan = await run_study(spec, archive, "one", {})
    trials = archive.trials.list("one", "search")
    tried = {trial.allocation["retrieve"].model for trial in trials}
    assert tried == {"small@plain", "small@fp8"}
    revisions = plan.provenance.models
    assert "plain" in revisions["small@plain"]
    assert "fp8" in revisions["small@fp8"]
    # One bank key for both speeds of a variant, another for the other quantisation: nothing drawn serves both.
    by_model = {m: [t for t in trials if t.allocation["retrieve"].model == m] for m in tried}
    for same in by_model.values():
        assert sum(t.spend.new_draws for t in same) == 8 * max(t.allocation["retrieve"].samples for t in same)
    [engine] = plan.engines
    quantisation = engine.model.partition("@")[2]
    assert engine.served == f"s@{quantisation}.seqs64"
    assert plan.stages[0].model == engine.model
    served = exported(archive, tmp_path / "out").model("s")
    assert (served.quantisation or "plain", served.max_num_seqs) == (quantisation, 64)
