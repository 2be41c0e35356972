"""Finds the draws that a stored plan or an unfinished study still stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from env.strategies import STRATEGIES
from planner.archive.sessions import Sessions
from planner.archive.statuses import TERMINAL
from planner.archive.tables import EvidenceRow, OriginRow, PlanRow, StudyRow, TrialRow, table_of

_ROWS_AT_ONCE = 2000

_WITHOUT_SCORES = frozenset(name for name, strategy in STRATEGIES.items() if "verifier" not in strategy.requires)
"""Strategies that ask no verifier."""


@dataclass(frozen=True)
class Referenced:
    """What must not be pruned."""

    prompts: frozenset[bytes] = frozenset()
    """Keys of prompts in the evidence of plans and of unfinished studies."""

    origins: frozenset[int] = frozenset()
    """Batches of unfinished studies: their draws may not be in any evidence yet."""

    scores: bool = False
    """Whether that evidence rests on verifiers. Evidence does not name the scores it used, so all of them stay."""


def referenced(sessions: Sessions) -> Referenced:
    """Look through the evidence of every trial of a study that has a plan or is not finished.

    A plan was chosen against all trials of its study, so all of them are its evidence.

    Raises:
        ArchiveError: the database failed.
    """
    evidence = table_of(EvidenceRow).c
    keys: set[bytes] = set()
    scores = False
    with sessions.read() as session:
        connection = session.connection()
        for study_id, trial_no, allocation in connection.execute(_standing_trials()).all():
            scores = scores or any(s["strategy"] not in _WITHOUT_SCORES for s in allocation.values())
            query = select(evidence.stages).where(evidence.study_id == study_id, evidence.trial_no == trial_no)
            for stages in connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)).scalars():
                keys.update(_keys(stages))
        return Referenced(frozenset(keys), frozenset(_unfinished_origins(connection)), scores)


def _standing_trials() -> Select[Any]:
    trials, plans, studies = table_of(TrialRow).c, table_of(PlanRow).c, table_of(StudyRow).c
    finished = select(studies.id).where(studies.status.in_(sorted(TERMINAL)))
    standing = or_(trials.study_id.not_in(finished), trials.study_id.in_(select(plans.study_id)))
    return select(trials.study_id, trials.trial_no, trials.allocation).where(standing)


def _keys(stages: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    for stage in stages:
        for key in (stage["prompt_key"], *stage.get("other_keys", ())):
            try:
                yield bytes.fromhex(key)
            except ValueError:
                continue


def _unfinished_origins(connection: Connection) -> Iterator[int]:
    studies, origins = table_of(StudyRow).c, table_of(OriginRow).c
    running = set(connection.execute(select(studies.id).where(studies.status.not_in(sorted(TERMINAL)))).scalars())
    for number, name in connection.execute(select(origins.id, origins.name)):
        if name.partition("/")[0] in running:
            yield number
