"""Finds the draws that a stored plan or an unfinished study still stands on, or may yet ask for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Select, or_, select

from env.errors import ApportionError
from env.spec import StudySpec
from env.spec.checkpoints import resolve_checkpoint
from env.spec.pipeline import JudgeModel, ServedModel, TorchModel
from env.strategies import STRATEGIES
from planner.archive.sessions import Sessions
from planner.archive.statuses import TERMINAL
from planner.archive.tables import EvidenceRow, ModelRow, OriginRow, PlanRow, StudyRow, TrialRow, table_of

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
        return Referenced(frozenset(keys), _origins_of(connection, _unfinished(connection)), scores)


@dataclass(frozen=True)
class Awaited:
    """Whose texts unfinished studies may yet have to read."""

    models: frozenset[int] | None = frozenset()
    """Numbers of the models they may ask; a prompt that one of them shares with an ended study may meet another parser
    or a verifier there. None: a study's models cannot be told, so any text may be awaited."""

    origins: frozenset[int] = frozenset()
    """Their batches, whatever the models are called."""


def awaited(connection: Connection, ending: str | None = None) -> Awaited:
    """What the unfinished studies may still read.

    Args:
        connection: of the transaction that drops the others.
        ending: a study that has nothing left to read, though its status may not say so yet.
    """
    studies, models = table_of(StudyRow).c, table_of(ModelRow).c
    unfinished = _unfinished(connection) - {ending}
    names: set[str] = set()
    for spec in connection.execute(select(studies.spec).where(studies.id.in_(sorted(unfinished)))).scalars():
        asked = _names_asked(spec)
        if asked is None:
            return Awaited(None)
        names |= asked
    numbers = connection.execute(select(models.id).where(models.name.in_(sorted(names)))).scalars()
    return Awaited(frozenset(numbers), _origins_of(connection, unfinished))


def _names_asked(spec: Any) -> set[str] | None:
    """Under which names the bank keeps the draws of a study's models; None where its spec cannot be read here."""
    try:
        models = StudySpec.model_validate(spec).pipeline.models.values()
        return {banked_name(model) for model in models if not isinstance(model, JudgeModel)}
    except (ValidationError, ApportionError):
        return None


def banked_name(model: ServedModel) -> str:
    """Under which name the bank keeps a model's draws.

    Raises:
        ApportionError: a checkpoint that is not there.
    """
    return resolve_checkpoint(model.checkpoint).resolve().name if isinstance(model, TorchModel) else model.model


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


def _unfinished(connection: Connection) -> set[str]:
    studies = table_of(StudyRow).c
    return set(connection.execute(select(studies.id).where(studies.status.not_in(sorted(TERMINAL)))).scalars())


def _origins_of(connection: Connection, studies: Collection[str]) -> frozenset[int]:
    origins = table_of(OriginRow).c
    rows = connection.execute(select(origins.id, origins.name))
    return frozenset(number for number, name in rows if name.partition("/")[0] in studies)
