"""The demo proposed by an LLM over real HTTP, on the real embedded models, bad replies of every kind among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.demo import demo_spec
from env.allocation import Allocation, StageSetting
from planner.space import SearchSpace
from tests.api.command.test_commands import apportion, small_study
from tests.scripted_llm import Late, Script, ScriptedLlm, best_again, guideline_follower, prompt_text


def bad_replies() -> list[Any]:
    """Malformed, over budget, duplicate, late."""
    stages = [s.name for s in demo_spec().pipeline.stages]
    most = Allocation.of({s: StageSetting("s", "vote", 4) for s in stages})
    over = {"allocation": {**most.to_json(), "read": {"model": "s", "strategy": "vote", "samples": 400}}, "reason": ""}
    return [
        "{not json",
        best_again,
        {"proposals": [over]},
        '```json\n{"proposals": [',
        Late(4.0, "too late"),
        Late(4.0, "too late"),
        Late(4.0, "too late"),
    ]


def after_bad_replies(bad: Sequence[Any]) -> Script:
    """A competent agent whose first replies to requests for proposals are bad; each of them comes, whatever the LLM is
    asked between them."""
    follow, left = guideline_follower(), list(bad)

    def script(request: dict[str, Any], number: int) -> Any:
        asked_for_proposals = "Reply name: proposals" in prompt_text(request)
        step = left.pop(0) if left and asked_for_proposals else follow
        return step(request, number) if callable(step) else step

    return script


def environment(llm: ScriptedLlm) -> dict[str, str]:
    return {"APPORTION_LLM_MODEL": "scripted", "APPORTION_LLM_BASE_URL": llm.base_url, "OPENAI_API_KEY": "sk-secret"}


def check(report: dict[str, Any], archive_text: str) -> None:
    reasons = " ".join(r["reason"] for r in report["refused"])
    assert report["study"]["proposer"] == "agent"
    assert "duplicate" in reasons
    assert "samples 400 not in" in reasons
    assert "sk-secret" not in archive_text
    proposer = next(line for line in report["plan"]["ledgers"] if line["ledger"] == "proposer")
    assert proposer["spent"] > 0


def test_a_small_demo_runs_through_bad_replies(tmp_path: Path) -> None:
    raw = small_study()
    raw["proposer"] = {"kind": "auto", "batch": 2, "timeout_s": 2.0}
    raw["budget"]["search"]["trials"] = 16
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(raw))
    with ScriptedLlm(after_bad_replies(bad_replies())) as llm:
        finished = apportion(tmp_path, "run", "study.yaml", "--json", env=environment(llm))
    assert finished.returncode == 0, finished.stderr
    files = [Path(f) for f in json.loads(finished.stdout)["files"]]
    report = json.loads((tmp_path / next(f for f in files if f.name == "report.json")).read_text())
    check(report, finished.stdout + finished.stderr)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_demo_runs_with_an_agent(tmp_path: Path) -> None:
    with ScriptedLlm(after_bad_replies(bad_replies()[:4])) as llm:
        finished = apportion(tmp_path, "demo", "--proposer", "agent", env=environment(llm), timeout=800)
    assert finished.returncode == 0, finished.stderr
    report = json.loads((tmp_path / "out" / "demo" / "report.json").read_text())
    check(report, finished.stdout + finished.stderr)
    assert len(report["trials"]) == demo_spec().budget.search.trials
    space = SearchSpace(demo_spec())
    assert all(not space.faults(Allocation.from_json(t["allocation"])) for t in report["trials"])
