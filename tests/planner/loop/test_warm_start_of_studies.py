"""Studies that learn from earlier ones of the same archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from env.spec import StudySpec
from planner import run_study
from planner.archive import Archive, open_archive
from planner.loop import StudyContext
from planner.loop.warm_start import past_studies
from tests.simulated import DiceBackends, simulated_spec


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with open_archive(f"sqlite:///{tmp_path / 'archive.db'}") as opened:
        yield opened


def spec_of(**proposer: Any) -> StudySpec:
    return simulated_spec(
        budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 6}},
        proposer={"kind": "insight", "batch": 3, **proposer},
    )


def warm_lines(archive: Archive, study_id: str) -> list[str]:
    return [g.text for g in archive.guidelines.list(study_id) if "warm_start" in g.structured]


@pytest.mark.asyncio
async def test_a_study_learns_from_an_earlier_one_and_says_so(archive: Archive) -> None:
    await run_study(spec_of(), archive, "first", {}, DiceBackends())
    assert not warm_lines(archive, "first")
    await run_study(spec_of(), archive, "second", {}, DiceBackends())
    lines = warm_lines(archive, "second")
    assert lines
    assert "first" in lines[0]


@pytest.mark.asyncio
async def test_a_study_may_begin_cold(archive: Archive) -> None:
    await run_study(spec_of(), archive, "first", {}, DiceBackends())
    await run_study(spec_of(warm_start=False), archive, "second", {}, DiceBackends())
    assert not warm_lines(archive, "second")


@pytest.mark.asyncio
async def test_only_what_was_done_before_a_study_began_counts(archive: Archive) -> None:
    spec = spec_of()
    archive.studies.create("later", spec.name, spec.model_dump(mode="json"), spec.seed)
    await run_study(spec, archive, "meanwhile", {}, DiceBackends())
    assert StudyContext(archive, "later", {}, DiceBackends()).past == ()


@pytest.mark.asyncio
async def test_a_name_that_stands_for_another_model_is_no_model_in_common(archive: Archive) -> None:
    await run_study(spec_of(), archive, "first", {}, DiceBackends())
    raw = spec_of().model_dump(mode="json")
    raw["pipeline"]["models"]["large"]["parameters"] = 70e9
    changed = StudySpec.model_validate(raw)
    archive.studies.create("second", changed.name, raw, 0)
    (past,) = past_studies(archive, "second", changed)
    models = {s.model for t in past.trials for _, s in t.allocation.settings}
    assert "large" not in models
    assert models <= {"small", "large of first"}
