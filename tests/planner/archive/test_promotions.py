"""Names of plans: what they stand for, what they stood for, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.archive import Archive, NotFound, PlanKind
from tests.planner.archive.samples import an_allocation


@pytest.fixture
def plans(archive: Archive) -> list[str]:
    """Ids of two studies with both plans each."""
    made = []
    for name in ("one", "two"):
        study = archive.studies.create(f"study-{name}", name, {}, seed=0).id
        for kind in ("chosen", "best"):
            archive.plans.record(study, kind, an_allocation(), {"of": study})  # type: ignore[arg-type]
        made.append(study)
    return made


def test_a_name_stands_for_what_it_was_given_last_and_keeps_its_history(archive: Archive, plans: list[str]) -> None:
    one, two = plans
    archive.promotions.promote("qa", one, by="anna")
    archive.promotions.promote("qa", two, "best", by="ben")
    assert archive.promotions.get("qa").plan_id == f"{two}:best"
    # Back to the first: another line of history.
    archive.promotions.promote("qa", one, by="anna")
    history = archive.promotions.history("qa")
    assert [(p.plan_id, p.promoted_by) for p in history] == [(one, "anna"), (f"{two}:best", "ben"), (one, "anna")]
    assert history[0].promoted_at >= history[1].promoted_at >= history[2].promoted_at


def test_giving_a_name_to_the_plan_it_stands_for_changes_nothing(archive: Archive, plans: list[str]) -> None:
    first = archive.promotions.promote("qa", plans[0], by="anna")
    assert archive.promotions.promote("qa", plans[0], by="ben") == first
    assert len(archive.promotions.history("qa")) == 1


def test_only_a_plan_that_exists_can_be_promoted(archive: Archive, plans: list[str]) -> None:
    with pytest.raises(NotFound):
        archive.promotions.promote("qa", "study-none")
    with pytest.raises(NotFound):
        archive.promotions.get("qa")


def test_every_name_is_listed_with_what_it_stands_for_now(archive: Archive, plans: list[str]) -> None:
    for name, study in (("b", plans[0]), ("a", plans[0]), ("b", plans[1])):
        archive.promotions.promote(name, study)
    assert [(p.name, p.study_id) for p in archive.promotions.current()] == [("a", plans[0]), ("b", plans[1])]


def test_plans_are_paged_newest_first_without_gaps(archive: Archive, plans: list[str]) -> None:
    everything = [(record.id, name) for record, name in archive.plans.page(10)]
    assert len(everything) == 4
    walked, after = [], None
    while page := archive.plans.page(1, after):
        [(record, name)] = page
        walked.append((record.id, name))
        after = (record.created_at, record.study_id, record.kind)
    assert walked == everything
    assert {record.study_id for record, _ in archive.plans.page(10, name_contains="TW")} == {plans[1]}
    assert {record.kind for record, _ in archive.plans.page(10, kind="best")} == {"best"}


def test_plans_come_by_study_and_kind_with_or_without_their_documents(archive: Archive, plans: list[str]) -> None:
    wanted: list[tuple[str, PlanKind]] = [(plans[1], "best"), (plans[0], "chosen"), ("none", "chosen")]
    found = archive.plans.some(wanted)
    assert found == {key: archive.plans.get(*key) for key in wanted[:2]}
    brief = archive.plans.some(wanted, documents=False)
    assert brief == {key: replace(record, document={}) for key, record in found.items()}
    assert {plan.id for plan, _ in archive.plans.page(9, documents=False)} >= {record.id for record in brief.values()}
