from __future__ import annotations

import math
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from env.execution.evidence import CurvePoint, ExampleEvidence, StageOutcome
from planner.archive import Archive, ArchiveError, KPoint, NotFound
from planner.archive.evidence import aggregated_curves
from tests.planner.archive.samples import a_result, an_allocation, an_example


def test_evidence_comes_back_exactly_as_it_went_in(archive: Archive, study: str) -> None:
    odd = replace(an_example(9), example_id="é/9 \0", reason="nul \0, substitute \x1a, surrogate \udcff")
    result = a_result()
    result = replace(result, evidence=(odd, *reversed(result.evidence)))
    archive.trials.record(study, 0, "search", 1, result, "flops")
    assert archive.trials.evidence(study, 0) == result.evidence


def test_a_trial_keeps_its_numbers(archive: Archive, study: str) -> None:
    result = a_result((0.0, 1.0, 1.0, None))
    trial = archive.trials.record(study, 3, "test", 2, result, "flops")
    assert trial == archive.trials.get(study, 3)
    assert (trial.split, trial.round, trial.status, trial.unit) == ("test", 2, "done", "flops")
    assert trial.allocation == result.allocation
    assert trial.allocation.stages == ("solve", "check")
    assert trial.score == result.score
    assert (trial.scored, trial.failed) == (3, 1)
    assert trial.standard_error == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))
    assert (trial.predicted_cost, trial.measured_cost) == (result.predicted_cost, result.measured_cost)
    assert trial.spend == result.spend


def test_one_scored_example_has_no_standard_error(archive: Archive, study: str) -> None:
    assert archive.trials.record(study, 0, "search", 0, a_result((1.0, None)), "flops").standard_error is None


def test_a_trial_without_a_scored_example_failed_and_has_no_score(archive: Archive, study: str) -> None:
    trial = archive.trials.record(study, 0, "search", 0, a_result((None, None)), "flops")
    assert (trial.status, trial.score, trial.measured_cost, trial.scored) == ("failed", None, None, 0)
    assert trial.curves == {}


def test_recording_again_changes_nothing(archive: Archive, study: str) -> None:
    first = archive.trials.record(study, 0, "search", 0, a_result((0.0, 1.0)), "flops")
    again = archive.trials.record(study, 0, "search", 5, a_result((1.0, 1.0, 1.0)), "flops")
    assert again == first
    assert len(archive.trials.evidence(study, 0)) == 2


def test_of_several_that_record_one_trial_at_once_one_wins(archive: Archive, study: str) -> None:
    def record(scored: int) -> int:
        return archive.trials.record(study, 0, "search", 0, a_result((0.5,) * scored), "flops").scored

    with ThreadPoolExecutor(4) as threads:
        seen = set(threads.map(record, [2, 3, 4, 5]))
    assert len(seen) == 1
    assert len(archive.trials.evidence(study, 0)) == seen.pop()


def test_an_example_named_twice_is_refused_and_leaves_no_trial(archive: Archive, study: str) -> None:
    result = replace(a_result(), evidence=(an_example(1), an_example(1)))
    with pytest.raises(ArchiveError, match="twice"):
        archive.trials.record(study, 0, "search", 0, result, "flops")
    assert archive.trials.list(study) == []


@pytest.mark.parametrize(
    "broken",
    [
        replace(a_result(), predicted_cost=math.inf),
        replace(a_result(), evidence=(replace(an_example(1), realised=math.nan),)),
        replace(a_result(), evidence=(replace(an_example(1), curves={"solve": ((1, math.nan, 1.0),)}),)),
    ],
)
def test_numbers_that_are_not_finite_are_refused_and_leave_no_trial(archive: Archive, study: str, broken) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArchiveError):
        archive.trials.record(study, 0, "search", 0, broken, "flops")
    assert archive.trials.list(study) == []


def test_a_trial_of_no_study_is_refused(archive: Archive) -> None:
    with pytest.raises(ArchiveError, match="refuses this row"):
        archive.trials.record("gone", 0, "search", 0, a_result(), "flops")


def test_a_trial_that_is_not_there_is_named(archive: Archive, study: str) -> None:
    with pytest.raises(NotFound, match="no trial 4"):
        archive.trials.get(study, 4)


def test_trials_are_listed_by_number_and_split(archive: Archive, study: str) -> None:
    for number, split in ((2, "test"), (0, "search"), (1, "search")):
        archive.trials.record(study, number, split, 0, a_result(), "flops")  # type: ignore[arg-type]
    assert [t.trial_no for t in archive.trials.list(study)] == [0, 1, 2]
    assert [t.trial_no for t in archive.trials.list(study, "test")] == [2]


def test_the_latest_search_trial_of_every_allocation_is_at_hand(archive: Archive, study: str) -> None:
    one, two = an_allocation(1), an_allocation(2)
    for number, allocation in enumerate((one, two, one)):
        archive.trials.record(study, number, "search", 0, a_result(allocation=allocation), "flops")
    archive.trials.record(study, 3, "test", 0, a_result(allocation=one), "flops")
    assert {a: t.trial_no for a, t in archive.trials.by_allocation(study).items()} == {one: 2, two: 1}


def test_curves_weigh_examples_by_mass_and_count_the_unknown_as_uncovered(archive: Archive, study: str) -> None:
    evidence = (
        ExampleEvidence(
            "a", "scored", 1.0, 1.0, curves={"s": (CurvePoint(1, 0.5, 1.0, 4), CurvePoint(2, 0.4, 0.5, 4))}
        ),
        ExampleEvidence(
            "b", "scored", 0.0, 0.0, curves={"s": (CurvePoint(1, 0.1, 0.2, 3), CurvePoint(8, 0.0, 0.0, 0))}
        ),
        ExampleEvidence("c", "failed", None, None),
    )
    # By hand: residuals of k = 1 are 0.5 - 0.5 * 1 = 0 and 0.1 - 0.5 * 0.2 = 0.
    expected = {"s": (KPoint(1, 0.6 / 1.2, 0.6, 7, 0.0), KPoint(2, 0.8, 0.25, 4, None), KPoint(8, None, 0.0, 0))}
    assert aggregated_curves(evidence) == expected
    trial = archive.trials.record(study, 0, "search", 0, replace(a_result(), evidence=evidence), "flops")
    assert trial.curves == expected


def test_the_error_of_a_curve_is_the_plain_one_where_every_mass_is_1() -> None:
    scores = [0.0, 1.0, 1.0, 0.25]
    evidence = [
        ExampleEvidence(str(n), "scored", s, s, curves={"s": (CurvePoint(1, s, 1.0, 1),)}) for n, s in enumerate(scores)
    ]
    assert aggregated_curves(evidence)["s"][0].standard_error == pytest.approx(statistics.stdev(scores) / 2)


def test_a_trial_says_how_many_distinct_draws_stand_behind_its_score(archive: Archive, study: str) -> None:
    def example(name: str, key: str, held: int) -> ExampleEvidence:
        outcomes = (StageOutcome("a", "1", "upstream", 4, 64, 1, 1), StageOutcome("b", "1", key, 2, held, 1, 1))
        return ExampleEvidence(name, "scored", 1.0, 1.0, stages=outcomes)

    evidence = (example("1", "x", 8), example("2", "x", 8), example("3", "y", 5), an_example(4, None))
    trial = archive.trials.record(study, 0, "search", 0, replace(a_result(), evidence=evidence), "flops")
    assert trial.draws == 13
