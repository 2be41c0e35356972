"""Pruning, text policies and export, on both databases."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from env.allocation import Allocation, StageSetting
from env.backends import Draw, ModelIdentity
from env.execution.evidence import ExampleEvidence, StageOutcome
from env.execution.reading import Reader
from env.spec.stage import RegexParser
from planner.archive import Archive, ArchiveError, StudyStatus
from planner.archive import export as exporting
from planner.archive.export import COLUMNS, export_draws
from planner.archive.texts import TextPolicy
from planner.archive.upkeep import Selection, Upkeep
from tests.planner.archive.samples import a_result
from tests.simulated import simulated_spec

SMALL, LARGE, JUDGE = (ModelIdentity(name, "r") for name in ("small", "large", "judge"))
PARSER = hashlib.sha256(b"parser").hexdigest()
FULL, HASH = TextPolicy("full"), TextPolicy("hash")
DAY = 86400


def a_key(number: object) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def draws(origin: str, *texts: str) -> list[Draw]:
    return [Draw(i, text, "stop", 7, 3, -0.5, None, origin) for i, text in enumerate(texts)]


def made_older(archive: Archive, key: str, days: float) -> None:
    prompt = "(SELECT id FROM prompts WHERE key = :key)"
    statement = text(f"UPDATE draws SET created_at = created_at - :s WHERE prompt_id = {prompt}")
    with archive.engine.begin() as connection:
        connection.execute(statement, {"s": int(days * DAY), "key": bytes.fromhex(key)})


def counts(archive: Archive) -> tuple[int, int, int, int]:
    found = Upkeep(archive.engine).stats(FULL)
    return found.draws, found.prompts, found.texts, found.answers


@pytest.fixture
def filled(archive: Archive) -> Archive:
    """Two finished studies; the plan of `s1` stands on prompt 1, prompt 2 is its too but in no evidence."""
    for study in ("s1", "s2"):
        archive.studies.create(study, study, {}, seed=0)
    archive.bank.settle(SMALL, {a_key(1): draws("s1/round-0", "4", "5"), a_key(2): draws("s1/round-0", "4", "6")})
    archive.bank.settle(LARGE, {a_key(3): draws("s2/round-0", "4", "7", "8")})
    archive.bank.settle(JUDGE, {a_key(4): [Draw(0, "", "score", 7, 0, None, 0.5, "s1/round-0")]})
    record_trial(archive, "s1", "vote")
    archive.plans.record("s1", "chosen", an_allocation("vote"), {})
    for study in ("s1", "s2"):
        archive.studies.set_status(study, "running")
        archive.studies.set_status(study, "done")
    return archive


def an_allocation(strategy: str) -> Allocation:
    return Allocation.of({"solve": StageSetting("small", strategy, 2)})


def record_trial(archive: Archive, study: str, strategy: str, *other_keys: str) -> None:
    outcome = StageOutcome("solve", '"4"', a_key(1), 2, 2, 7, 6, other_keys=other_keys)
    evidence = (ExampleEvidence("e", "scored", 1.0, 1.0, stages=(outcome,)),)
    result = replace(a_result(), allocation=an_allocation(strategy), evidence=evidence)
    number = len(archive.trials.list(study))
    archive.trials.record(study, number, "search", 0, result, "flops")


def test_a_dry_run_counts_what_a_pruning_then_removes(filled: Archive) -> None:
    upkeep, study = Upkeep(filled.engine), Selection(study_id="s1")
    before = counts(filled)
    planned = upkeep.prune(study, FULL)
    assert counts(filled) == before
    done = upkeep.prune(study, FULL, dry_run=False)
    assert (planned.draws, planned.protected) == (done.draws, done.protected) == (3, 2)
    assert set(filled.bank.held([a_key(n) for n in range(9)])) == {a_key(1), a_key(3)}
    assert done.texts_removed == 1  # "6"; "4" is still in use


def test_draws_under_a_plan_go_by_force_only(filled: Archive) -> None:
    upkeep, old = Upkeep(filled.engine), Selection(model="small")
    assert upkeep.prune(old, FULL, dry_run=False).draws == 2
    assert upkeep.prune(old, FULL, dry_run=False, force=True).draws == 2
    assert set(filled.bank.held([a_key(n) for n in range(9)])) == {a_key(3), a_key(4)}


def test_what_a_strategy_asked_beside_its_own_prompt_is_evidence_too(filled: Archive) -> None:
    record_trial(filled, "s1", "revise", a_key(2))
    assert Upkeep(filled.engine).prune(Selection(model="small"), FULL, dry_run=False).draws == 0
    assert set(filled.bank.held([a_key(1), a_key(2)])) == {a_key(1), a_key(2)}


def test_scores_stay_while_a_plan_rests_on_a_verifier(filled: Archive) -> None:
    record_trial(filled, "s1", "best_of_n")
    pruned = Upkeep(filled.engine).prune(Selection(model="judge"), FULL, dry_run=False)
    assert (pruned.draws, pruned.protected) == (0, 1)
    assert a_key(4) in filled.bank.held([a_key(4)])


def test_draws_of_a_study_that_still_runs_stay(filled: Archive) -> None:
    filled.studies.create("s3", "s3", {}, seed=0)
    filled.bank.settle(LARGE, {a_key(5): draws("s3/round-0", "9")})
    pruned = Upkeep(filled.engine).prune(Selection(older_than_days=0), FULL, dry_run=False)
    assert pruned.draws == 6
    assert set(filled.bank.held([a_key(n) for n in range(9)])) == {a_key(1), a_key(5)}


def test_only_draws_old_enough_go(filled: Archive) -> None:
    made_older(filled, a_key(3), 9)
    assert Upkeep(filled.engine).prune(Selection(older_than_days=8), FULL, dry_run=False).draws == 3
    assert Upkeep(filled.engine).prune(Selection(older_than_days=8), FULL, dry_run=False).draws == 0


def test_conditions_hold_together(filled: Archive) -> None:
    assert Upkeep(filled.engine).prune(Selection(model="large", study_id="s1"), FULL).draws == 0


def test_a_model_nobody_knows_is_an_error(filled: Archive) -> None:
    with pytest.raises(ArchiveError, match="no draws of a model 'medium'"):
        Upkeep(filled.engine).prune(Selection(model="medium"), FULL)


def test_pruned_draws_can_be_drawn_again(filled: Archive) -> None:
    Upkeep(filled.engine).prune(Selection(model="large"), FULL, dry_run=False)
    again = draws("s4/round-0", "x", "y")
    assert filled.bank.settle(LARGE, {a_key(3): again}) == 2
    assert filled.bank.held([a_key(3)]) == {a_key(3): tuple(again)}


def test_nothing_selected_removes_no_draw(filled: Archive) -> None:
    before = counts(filled)
    assert Upkeep(filled.engine).prune(Selection(), FULL, dry_run=False).draws == 0
    assert counts(filled) == before


def test_the_policy_drops_texts_whose_answers_were_kept_and_no_others(filled: Archive) -> None:
    filled.bank.keep_answers(PARSER, {a_key(1): {0: '"4"', 1: '"5"'}})
    upkeep = Upkeep(filled.engine)
    # "4" is read for prompt 1, but prompts 2 and 3 wrote it too and were not read yet.
    assert upkeep.prune(Selection(), HASH).texts_dropped == upkeep.prune(Selection(), HASH, False).texts_dropped == 1
    held = filled.bank.held([a_key(1), a_key(2)])
    assert [(d.text, d.text_dropped) for d in held[a_key(1)]] == [("4", False), ("", True)]
    assert [d.text for d in held[a_key(2)]] == ["4", "6"]
    assert filled.bank.answers(PARSER, [a_key(1)]) == {a_key(1): {0: '"4"', 1: '"5"'}}
    assert (held[a_key(1)][1].output_tokens, held[a_key(1)][1].logprob) == (3, -0.5)
    found = upkeep.stats(HASH)
    assert (found.texts, found.texts_dropped, found.draws) == (5, 1, 8)


def test_a_prompt_whose_texts_were_all_known_counts_as_read_too(filled: Archive) -> None:
    parser = RegexParser(kind="regex", pattern=r"\d+")
    for key in (a_key(1), a_key(2), a_key(3)):
        filled.bank.settle(SMALL, {key: draws("s1/round-1", "4", "5", "6", "7")})
        Reader(filled.bank, parser).read(filled.bank.held([key]))
    assert Upkeep(filled.engine).prune(Selection(), HASH, dry_run=False).texts_dropped == 5


def test_texts_a_verifier_needs_stay_until_it_does_not(filled: Archive) -> None:
    answers = {a_key(3): {0: '"4"', 1: '"7"', 2: '"8"'}}
    filled.bank.keep_answers(PARSER, answers, texts_needed=True)
    assert Upkeep(filled.engine).prune(Selection(), HASH, dry_run=False).texts_dropped == 0
    filled.bank.keep_answers(PARSER, answers)
    assert Upkeep(filled.engine).prune(Selection(), HASH, dry_run=False).texts_dropped == 2


def test_texts_go_days_after_their_youngest_draw(filled: Archive) -> None:
    filled.bank.keep_answers(PARSER, {a_key(3): {1: '"7"', 2: '"8"'}})
    upkeep, week = Upkeep(filled.engine), TextPolicy("days", 7)
    assert upkeep.prune(Selection(), week).texts_dropped == 0
    made_older(filled, a_key(3), 7.1)
    assert upkeep.prune(Selection(), week, dry_run=False).texts_dropped == 2


def test_a_dropped_text_that_is_written_again_is_kept_again(filled: Archive) -> None:
    filled.bank.keep_answers(PARSER, {a_key(3): {1: '"7"', 2: '"8"'}})
    Upkeep(filled.engine).prune(Selection(), HASH, dry_run=False)
    filled.bank.settle(SMALL, {a_key(9): draws("s4/round-0", "7")})
    assert [d.text for d in filled.bank.held([a_key(9)])[a_key(9)]] == ["7"]
    assert filled.bank.settle(LARGE, {a_key(3): draws("s4/round-0", "other", "other", "other")}) == 0
    assert counts(filled)[2] == 5  # losers leave no text behind


@pytest.fixture
def read(filled: Archive) -> Archive:
    """Every draw of `filled` has been read, so that `hash` lets all of its texts go: 4, 5, 6, 7 and 8."""
    for number, count in ((1, 2), (2, 2), (3, 3)):
        filled.bank.keep_answers(PARSER, {a_key(number): {i: f'"{i}"' for i in range(count)}})
    return filled


def kept_texts(archive: Archive) -> set[str]:
    held = archive.bank.held([a_key(n) for n in range(9)])
    return {d.text for draws in held.values() for d in draws if d.text}


def a_spec(*models: str) -> dict[str, Any]:
    raw = simulated_spec().model_dump(mode="json")
    raw["pipeline"]["models"] = {m: raw["pipeline"]["models"]["small"] | {"model": m} for m in models}
    for stage in raw["pipeline"]["stages"]:
        stage.update(models=list(models), strategies=["vote"], verifier=None)
    return raw


@pytest.mark.parametrize("status", ["done", "failed", "cancelled"])
def test_at_a_studys_end_texts_go_and_all_that_plans_are_made_of_stays(read: Archive, status: StudyStatus) -> None:
    read.studies.create("s3", "s3", a_spec("small", "large"), seed=0)
    read.studies.set_status("s3", "running")
    before, evidence = counts(read), read.trials.evidence("s1", 0)
    upkeep = Upkeep(read.engine)
    assert upkeep.drop_texts(HASH, ending="s3") == 5
    assert kept_texts(read) == set()
    assert upkeep.drop_texts(HASH, ending="s3") == 0  # a step that runs again
    read.studies.set_status("s3", status)
    assert upkeep.drop_texts(HASH) == 0
    assert (counts(read), read.trials.evidence("s1", 0)) == (before, evidence)
    assert read.bank.answers(PARSER, [a_key(3)]) == {a_key(3): {0: '"0"', 1: '"1"', 2: '"2"'}}


@pytest.mark.parametrize("status", ["queued", "running", "paused"])
def test_texts_of_models_that_an_unfinished_study_asks_stay_until_it_ends(read: Archive, status: StudyStatus) -> None:
    read.studies.create("s3", "s3", a_spec("large"), seed=0)
    read.studies.set_status("s3", status)
    upkeep = Upkeep(read.engine)
    assert upkeep.drop_texts(HASH, ending="s2") == 2
    assert kept_texts(read) == {"4", "7", "8"}  # "4" was written by both models
    assert upkeep.drop_texts(HASH, ending="s3") == 3


def test_texts_that_an_unfinished_study_asked_for_first_stay_whatever_its_models_are_called(read: Archive) -> None:
    read.studies.create("s3", "s3", a_spec("renamed"), seed=0)
    read.bank.settle(LARGE, {a_key(5): draws("s3/round-0", "7")})
    read.bank.keep_answers(PARSER, {a_key(5): {0: '"7"'}})
    assert Upkeep(read.engine).drop_texts(HASH) == 4
    assert kept_texts(read) == {"7"}


def test_no_text_goes_while_a_study_runs_whose_models_cannot_be_told(read: Archive) -> None:
    read.studies.create("s3", "from another version", {"version": 0}, seed=0)
    assert Upkeep(read.engine).drop_texts(HASH) == 0
    assert Upkeep(read.engine).prune(Selection(), HASH, dry_run=False).texts_dropped == 0
    assert kept_texts(read) == {"4", "5", "6", "7", "8"}
    forced = Upkeep(read.engine).prune(Selection(model="judge"), HASH, dry_run=False, force=True)
    assert forced.texts_dropped == 5


def test_nothing_to_drop_takes_no_lock(read: Archive) -> None:
    with read.exclusive("a study writes"):
        assert Upkeep(read.engine).drop_texts(TextPolicy("days", 7)) == 0
        assert Upkeep(read.engine).drop_texts(FULL) == 0


def test_the_policy_is_a_setting_of_the_archive(archive: Archive) -> None:
    assert archive.bank.text_policy == FULL
    for written in ("hash", "days:30", "full"):
        archive.bank.set_text_policy(TextPolicy.parse(written))
        assert str(Archive(archive.engine).bank.text_policy) == written
    for nonsense in ("", "none", "days:0", "days:x", "days:999999"):
        with pytest.raises(ArchiveError, match="no text policy"):
            TextPolicy.parse(nonsense)


def test_compacting_keeps_everything_but_the_free_space(filled: Archive) -> None:
    big = {
        a_key(f"big {n}"): draws("s2/round-1", hashlib.shake_256(str(n).encode()).hexdigest(4000)) for n in range(200)
    }
    filled.bank.settle(LARGE, big)
    kept = filled.bank.held([a_key(1)])
    Upkeep(filled.engine).prune(Selection(model="large"), FULL, dry_run=False)
    before, after = Upkeep(filled.engine).compact()
    assert after < before - 400_000
    assert filled.bank.held([a_key(1)]) == kept


def test_an_export_holds_every_draw_with_texts_answers_and_digests(
    filled: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "DRAWS_A_GROUP", 3)  # several groups, prompts split between them
    filled.bank.settle(SMALL, {a_key(6): draws("s1/round-9", "lone \ud83e")})
    filled.bank.keep_answers(PARSER, {a_key(3): {0: '"4"', 1: '"7"', 2: None}})
    Upkeep(filled.engine).prune(Selection(), HASH, dry_run=False)
    told: list[tuple[int, int]] = []
    file = tmp_path / "new folder" / "draws.parquet"
    assert export_draws(filled.engine, file, tick=lambda *t: told.append(t)) == 9
    assert told == [(3, 9), (6, 9), (9, 9)]
    table = pq.read_table(file)
    assert table.column_names == [column.name for column, _ in COLUMNS]
    assert pq.ParquetFile(file).metadata.num_row_groups == 3
    rows = {(row["prompt_key"], row["index"]): row for row in table.to_pylist()}
    assert len(rows) == 9
    seven = rows[a_key(3), 1]
    assert seven["text"] is None
    assert (seven["text_digest"], seven["text_length"]) == (hashlib.blake2b(b"7", digest_size=16).hexdigest(), 1)
    assert seven["answers"] == [{"parser": PARSER, "answer": '"7"'}]
    assert (seven["model"], seven["origin"], seven["finish_reason"]) == ("large", "s2/round-0", "stop")
    assert rows[a_key(6), 0]["text"] == "lone \x1ad83e"
    score = rows[a_key(4), 0]
    assert (score["score"], score["text"], score["text_digest"], score["finish_reason"]) == (0.5, "", None, "score")
    assert [path.name for path in file.parent.iterdir()] == ["draws.parquet"]


def test_an_export_of_one_model_holds_no_other(filled: Archive, tmp_path: Path) -> None:
    assert export_draws(filled.engine, tmp_path / "x.parquet", model="large") == 3
    assert set(pq.read_table(tmp_path / "x.parquet").column("model").to_pylist()) == {"large"}


def test_an_export_that_cannot_be_written_says_so(filled: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="cannot be written"):
        export_draws(filled.engine, tmp_path / "file" / "x.parquet")
