"""The report of whole studies on simulated models: one document, three formats that cannot disagree."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plotly.graph_objects import Figure

from env.costs import Calibration
from planner import run_study
from planner.archive import Archive, NotFound, ProposalRecord, open_archive
from planner.plans import PlanDocument, amount
from planner.plans.figures import curves_figure
from planner.plans.gathering import GatheredReport, gather_report
from planner.plans.markdown import report_markdown
from planner.plans.report import FORMATS, ReportFigure, _script_data, report_text, write_report
from planner.plans.sections import SHOWN_TRIALS
from planner.plans.study_report import Extra, StudyReport
from planner.plans.wording import allocation_text
from tests.planner.archive.samples import a_result
from tests.planner.plans.reading import numbers, page_text, shown, tables, tokens
from tests.planner.plans.test_escaping import HOSTILE
from tests.simulated import DiceBackends, simulated_spec

OWN_WORDS = {"95", "1", "256", "0.005"}
"""Numbers of our own sentences: the interval's 95%, "1% of the budget", SHA-256, the plateau's tolerance."""

HARMLESS_HTML = {"html", "head", "meta", "title", "style", "script", "body", "figure"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """A finished study of 30 trials, with an LLM's calls and some refused proposals added."""
    with open_archive(f"sqlite:///{tmp_path_factory.mktemp('report') / 'a.db'}") as opened:
        budget = {"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 30}}
        spec = simulated_spec(budget=budget, description="Find, read and solve.")
        asyncio.run(run_study(spec, opened, "s1", {}, DiceBackends()))
        for i in range(5):
            reason = f"over budget: {7 + i}e+12 FLOPs per query, the plan may cost 6e+12"
            opened.proposals.record(ProposalRecord("s1", 90, 0, i, None, "agent", "refused", reason))
        tried = opened.trials.list("s1", "search")[0].allocation
        duplicate = "duplicate: this allocation was tried or proposed already"
        opened.proposals.record(ProposalRecord("s1", 90, 0, 5, tried, "agent", "refused", duplicate))
        call = ProposalRecord("s1", 90, 0, 1000, None, "call", "refused", "timed out", tokens_in=70, tokens_out=9)
        opened.proposals.record(call)
        yield opened


@pytest.fixture(scope="module")
def gathered(archive: Archive) -> GatheredReport:
    return gather_report(archive, "s1")


@pytest.fixture(scope="module")
def data(gathered: GatheredReport) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(report_text(gathered, "json"))
    return found


def markdown_of(gathered: GatheredReport) -> str:
    return report_text(gathered, "md")


# One document ----------------------------------------------------------------------------------------------------


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def ways_to_write(value: float) -> set[str]:
    """Every form in which a number may stand in a report."""
    plain = abs(value)
    prefixed = {amount(plain, unit).split()[0] for unit in ("FLOPs", "s")}
    forms = {f"{plain:.3f}", f"{plain:.4g}", f"{plain:.0f}", f"{plain:.1f}", f"{plain:.4f}", *prefixed}
    return forms | {f"{100 * plain:.0f}", f"{100 * plain:.1f}"}


def known_numbers(data: Any) -> set[str]:
    found = set(OWN_WORDS)
    for leaf in leaves(data):
        if isinstance(leaf, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", leaf):
            found |= set(re.findall(r"\d+", leaf))
        elif isinstance(leaf, str):
            found |= numbers(leaf)
        elif isinstance(leaf, int | float) and not isinstance(leaf, bool):
            found |= ways_to_write(leaf)
    return found


def test_every_number_of_the_reports_is_the_json_documents(gathered: GatheredReport, data: dict[str, Any]) -> None:
    known = known_numbers(data) | {str(len(data["trials"]) - SHOWN_TRIALS)}
    for text in (shown(markdown_of(gathered)), page_text(report_text(gathered, "html"))):
        assert numbers(text) - known == set()
        assert len(numbers(text)) > 100


def test_markdown_and_page_say_the_same(gathered: GatheredReport) -> None:
    markdown, page = shown(report_markdown(gathered.report)), page_text(report_text(gathered, "html"))
    assert numbers(markdown) - OWN_WORDS <= numbers(page)
    for sentence in (*gathered.report.summary, gathered.report.runner_up, *gathered.report.limits):
        assert " ".join(sentence.split()) in markdown
        assert " ".join(sentence.split()) in page


def test_a_wrong_number_would_be_seen(gathered: GatheredReport, data: dict[str, Any]) -> None:
    assert numbers("scores 0.123456 at 17.77 TFLOPs") - known_numbers(data) == {"0.123456", "17.77"}


def test_the_tables_hold_what_the_document_says(gathered: GatheredReport, data: dict[str, Any]) -> None:
    found = tables(markdown_of(gathered))
    plan = data["plan"]
    for row, stage in zip(found["The plan"], data["stages"], strict=True):
        assert [row[c] for c in ("Stage", "Model", "Strategy", "k")] == [
            stage["stage"], stage["model"], stage["strategy"], str(stage["samples"])
        ]  # fmt: skip
        assert row["Cost per query"] == amount(stage["predicted_cost"], plan["unit"])
    for row, rival in zip(found["Can it be told apart from others?"], plan["rivals"], strict=True):
        d = rival["difference"]
        assert row["Test score"] == f"{rival['score']['estimate']:.3f}"
        assert row["Plan minus rival, 95% interval"] == f"{d['estimate']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})"
    front = found["Score over cost: the Pareto front"]
    assert [int(row["Trial"]) for row in front] == [p["trial_no"] for p in plan["pareto"]]
    assert [row["Search score"] for row in front] == [f"{p['score']:.3f}" for p in plan["pareto"]]
    assert [row["Allocation"] for row in front if row["Plan"]] == [allocation_text(plan["allocation"])]
    tried = found["What was tried"]
    best = sorted(data["trials"], key=lambda t: (-t["score"], t["predicted_cost"], t["trial_no"]))[:SHOWN_TRIALS]
    assert [int(row["Trial"]) for row in tried] == [t["trial_no"] for t in best]
    assert [row["Score"] for row in tried] == [f"{t['score']:.3f}" for t in best]
    assert "10 more trials left out here" in shown(markdown_of(gathered))


def test_refusals_are_grouped_by_reason_and_llm_calls_are_none(data: dict[str, Any], gathered: GatheredReport) -> None:
    rows = tables(markdown_of(gathered))["What was refused, and why"]
    assert (rows[0]["Times"], rows[0]["Reason"]) == ("5", "over budget: … FLOPs per query, the plan may cost …")
    duplicates = next(row for row in rows if row["Reason"].startswith("duplicate"))
    assert duplicates["For instance"] == data["trials"][0]["text"]
    assert sum(group["count"] for group in data["refusals"]) == len(data["refused"])
    assert not any("timed out" in r["reason"] for r in data["refused"])


def test_ledgers_say_what_plan_search_test_and_proposer_spent(archive: Archive, data: dict[str, Any]) -> None:
    spent = {(line["ledger"], line["what"]): line for line in data["ledgers"]}
    trials = archive.trials.list("s1", "search")
    assert spent["plan", "predicted, per query"]["limit"] == data["plan"]["budget"]
    assert (spent["search", "trials run"]["spent"], spent["search", "trials run"]["limit"]) == (30, 30)
    assert spent["search", "output, new draws"]["spent"] == sum(t.spend.output_tokens for t in trials)
    charged = {(x["ledger"], x["unit"]): x["spent"] for x in data["ledgers"] if x["what"] == "charged to the ledger"}
    assert charged["search", "draws"] == sum(t.spend.new_draws for t in trials)
    assert spent["proposer", "calls without a usable reply"]["spent"] == 1
    assert (spent["proposer", "prompt"]["spent"], spent["proposer", "reply"]["spent"]) == (70, 9)
    assert [line["ledger"] for line in data["ledgers"]] == sorted(
        (line["ledger"] for line in data["ledgers"]), key=["plan", "search", "test", "proposer"].index
    )


# Evidence --------------------------------------------------------------------------------------------------------


def test_neighbouring_models_are_compared_example_by_example(archive: Archive, gathered: GatheredReport) -> None:
    read = next(s for s in gathered.report.stages if s.stage == "read")
    assert read.model == "large"
    (smaller,) = read.neighbours
    assert (smaller.side, smaller.model) == ("smaller", "small")
    assert smaller.difference is not None
    assert smaller.trial_no is not None
    mine, theirs = (
        {e.example_id: e.score for e in archive.trials.evidence("s1", number) if e.score is not None}
        for number in (gathered.chosen.trial_no if gathered.chosen else 0, smaller.trial_no)
    )
    shared = mine.keys() & theirs.keys()
    mean = sum(mine[i] - theirs[i] for i in shared) / len(shared)
    assert smaller.difference.estimate == pytest.approx(mean)
    assert smaller.difference.low <= mean <= smaller.difference.high
    assert f"{mean:+.3f}" in smaller.words


def test_the_next_sample_is_worth_what_the_examples_say(archive: Archive, gathered: GatheredReport) -> None:
    plan = gathered.report.plan
    stages = [s for s in gathered.report.stages if s.down is not None]
    assert stages
    for stage in stages:
        assert stage.down is not None
        assert stage.down.samples < stage.samples
        assert stage.down.cost < 0
        assert stage.down.affordable
        points = {p.k: p for p in stage.curve}
        if points[stage.down.samples].coverage == points[stage.samples].coverage == 1:
            change = (points[stage.down.samples].score or 0) - (points[stage.samples].score or 0)
            assert stage.down.difference.estimate == pytest.approx(change)
        percent = 100 * stage.down.cost / plan.budget
        assert stage.down.per_percent == pytest.approx(stage.down.difference.estimate / percent)


def test_plateaus_are_said_with_their_numbers(gathered: GatheredReport) -> None:
    for stage in gathered.report.stages:
        if stage.plateau is None:
            words = "only one number of samples" if len(stage.curve) < 2 else "too few draws"
            assert words in stage.curve_words
            continue
        point = next(p for p in stage.curve if p.k == stage.plateau)
        assert f"{point.score:.3f} at {stage.plateau}" in stage.curve_words
        assert f"in trial {stage.curve_trial}" in stage.curve_words


def test_limits_say_what_the_evidence_does_not(gathered: GatheredReport) -> None:
    text = " ".join(gathered.report.limits)
    assert "30 search examples" in text
    assert "sealed test split (30 scored examples) was read once" in text
    assert "of more than 20,000 that the budget buys" in text or "that the budget buys were tried" in text
    alike = [r.label for r in gathered.report.plan.rivals if r.verdict == "cannot be told apart"]
    assert all(label in text for label in alike)


def test_there_are_three_sentences_of_summary(gathered: GatheredReport) -> None:
    first, second, third = gathered.report.summary
    plan = gathered.report.plan
    assert plan.test_score is not None
    assert f"scores {plan.test_score.estimate:.3f} on 30 sealed test examples" in first
    assert "chosen among 30 trials" in second
    assert "Most of its cost goes to" in third


# Safety ----------------------------------------------------------------------------------------------------------


def hostile(value: Any, texts: Iterator[str]) -> Any:
    """The same document with every text but those of fixed choices replaced."""
    fixed = {"kind", "verdict", "side", "created_at", "started_at", "finished_at", "status", "version", "unit"}
    if isinstance(value, dict):
        return {k: v if k in fixed else hostile(v, texts) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v, texts) for v in value]
    return next(texts) if isinstance(value, str) else value


def cycled() -> Iterator[str]:
    while True:
        yield from HOSTILE


def test_no_text_of_a_study_becomes_markup(gathered: GatheredReport, data: dict[str, Any]) -> None:
    report = StudyReport.model_validate(hostile(data, cycled()))
    report = report.model_copy(update={"extras": [Extra(name=t, value=t, words=t) for t in HOSTILE]})
    kinds = {t.type for t in tokens(report_markdown(report))}
    assert not kinds & {"html_inline", "html_block", "link_open", "image", "fence", "code_block", "blockquote_open"}
    assert not kinds & {"em_open", "strong_open", "s_open", "hr", "ordered_list_open"}
    headings = [t for t in tokens(report_markdown(report)) if t.type == "heading_open"]
    assert {t.tag for t in headings} == {"h1", "h2"}
    usual = [t for t in tokens(report_markdown(gathered.report)) if t.type == "heading_open"]
    assert len(headings) == len(usual) + (not gathered.report.extras)
    assert "<script>alert(1)</script>" in shown(report_markdown(report))

    page = report_text(GatheredReport(report, gathered.trials, gathered.ladders, gathered.chosen), "html")
    assert "<script>alert(1)" not in page
    assert "<img" not in page.split("<body>")[1].split("<script")[0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "javascript:alert(1)" in page_text(page)
    assert not re.search(r"<a [^>]*javascript:", page)


def test_no_name_ends_the_script_that_draws(gathered: GatheredReport) -> None:
    assert gathered.chosen is not None
    renamed = {f"{stage}</script><b>": points for stage, points in gathered.chosen.curves.items()}
    chosen = replace(gathered.chosen, curves=renamed)
    data = _script_data([ReportFigure("x", "x", curves_figure(chosen)), ReportFigure("y", "y", Figure())])
    assert "<" not in data
    assert set(json.loads(data)) == {"x", "y"}


def test_pictures_are_the_only_links_and_lie_beside_the_report(archive: Archive, tmp_path: Path) -> None:
    files = {p.relative_to(tmp_path).as_posix() for p in write_report(archive, "s1", tmp_path)}
    markdown = (tmp_path / "report.md").read_text()
    pictures = [str(t.attrs["src"]) for t in tokens(markdown) if t.type == "image"]
    assert set(pictures) == {f for f in files if f.endswith(".svg")}
    assert len(pictures) >= 5
    assert all((tmp_path / p).read_text().startswith("<svg") for p in pictures)
    assert not [t for t in tokens(markdown) if t.type == "link_open"]
    assert not list(tmp_path.rglob("*.part"))
    assert {"plan.yaml", *(f"report.{f}" for f in FORMATS)} <= files


# Other documents -------------------------------------------------------------------------------------------------

OLD_PLAN: dict[str, Any] = {
    "kind": "chosen",
    "allocation": {
        "solve": {"model": "small", "strategy": "vote", "samples": 4},
        "check": {"model": "large", "strategy": "best-of-n", "samples": 1},
    },
    "stages": [
        {"stage": "solve", "model": "small", "strategy": "vote", "samples": 4, "predicted_cost": 1e12, "why": "old"},
        {"stage": "check", "model": "large", "strategy": "best-of-n", "samples": 1, "predicted_cost": 3e11, "why": ""},
    ],
    "unit": "FLOPs",
    "predicted_cost": 1.25e12,
    "measured_cost": None,
    "budget": 2e12,
    "search_score": 0.5,
    "search_examples": 2,
    "test_score": None,
    "rivals": [],
    "pareto": [],
    "guidelines": [],
    "ledgers": [{"ledger": "search", "spent": 12, "unit": "draws", "limit": None}],
    "trials": 1,
    "refused": 0,
    "explanation": "an old plan",
    "provenance": {
        "study_id": "old", "study": "old", "spec_sha256": "ab" * 32, "seed": 0, "proposer": "insight", "models": {},
        "apportion": "0.0.1",
    },
}  # fmt: skip


@pytest.mark.parametrize("trials", [0, 1])
def test_plans_of_older_versions_are_still_reported(tmp_path: Path, trials: int) -> None:
    with open_archive(f"sqlite:///{tmp_path / 'a.db'}") as archive:
        archive.studies.create("old", "old", {"version": 0, "name": "old"}, seed=0)
        for number in range(trials):
            archive.trials.record("old", number, "search", 0, a_result(), "FLOPs")
        document = PlanDocument.model_validate(OLD_PLAN)
        archive.plans.record("old", "chosen", a_result().allocation, OLD_PLAN)
        write_report(archive, "old", tmp_path / "out")
        markdown = (tmp_path / "out" / "report.md").read_text()
        page = (tmp_path / "out" / "report.html").read_text()
        data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["best"] is None
    assert data["plan"] == document.model_dump(mode="json")
    for text in (shown(markdown), page_text(page)):
        assert "could not be scored on the sealed test split" in text
        assert "cannot be worked out" in text or trials == 0
        assert "1.25 TFLOPs per query of 2 TFLOPs allowed" in text


def test_what_a_newer_plan_says_beyond_the_report_is_not_lost(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    from planner.plans import gathering

    monkeypatch.setattr(gathering, "PLACED", gathering.PLACED - {"test_score", "search_score"})
    extras = {e.name: e for e in gather_report(archive, "s1").report.extras}
    document = PlanDocument.model_validate(dict(archive.plans.get("s1").document))
    assert document.test_score is not None
    assert extras["search score"].words == f"{document.search_score:.4g}"
    assert extras["test score"].words.startswith(f"{document.test_score.estimate:.3f} (95% interval")


def test_a_study_without_a_plan_has_no_report(archive: Archive) -> None:
    archive.studies.create("none", "none", {}, seed=0)
    with pytest.raises(NotFound, match="has no chosen plan"):
        gather_report(archive, "none")


def test_calibrations_keep_their_place_for_scripts(data: dict[str, Any]) -> None:
    (first, *_) = data["calibrations"].values()
    assert set(first) == set(Calibration.__dataclass_fields__)
