"""Earlier studies of an archive as evidence for a new one: the same stages, the same models, what they scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice

from env.allocation import Allocation, StageSetting
from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, StudyRecord, TrialRecord
from planner.history import PastStudy, TrialView
from planner.loop.experience import earlier_studies
from planner.loop.journal import trial_view

MAX_TAKEN = 4
"""Of those with something in common, how many are taken: the newest."""

MAX_TRIALS = 40
"""Trials of each that are looked at: the best."""


def past_studies(archive: Archive, study_id: str, spec: StudySpec) -> tuple[PastStudy, ...]:
    """Studies done before this one was created that share a stage, by name, with one of its models.

    They are the same whenever it is asked, so that a resumed study learns from no others. Where a name stands for
    another model than in this study, the old one is told under a name of its own. Studies that can no longer be read
    are left out.

    Args:
        archive: holds the studies.
        study_id: the new one.
        spec: of the new one.
    """
    found = (_past(archive, study, spec) for study in earlier_studies(archive, study_id))
    return tuple(islice((past for past in found if past is not None), MAX_TAKEN))


def _past(archive: Archive, study: StudyRecord, spec: StudySpec) -> PastStudy | None:
    try:
        old = StudySpec.model_validate(dict(study.spec))
    except (ApportionError, ValueError):
        return None
    models = {name for name, model in old.pipeline.models.items() if spec.pipeline.models.get(name) == model}
    here = {stage.name: set(stage.models) & models for stage in spec.pipeline.stages}
    if not any(here.get(stage.name, set()) & set(stage.models) for stage in old.pipeline.stages):
        return None
    names = {name: name if name in models else f"{name} of {study.id}" for name in old.pipeline.models}
    scored = [t for t in archive.trials.list(study.id, "search") if t.score is not None]
    best = sorted(scored, key=lambda t: (-(t.score or 0.0), t.trial_no))[:MAX_TRIALS]
    return PastStudy(study.id, study.name, tuple(_view(t, names) for t in best)) if best else None


def _view(trial: TrialRecord, names: Mapping[str, str]) -> TrialView:
    renamed = {
        stage: StageSetting(names.get(s.model, s.model), s.strategy, s.samples, s.knobs)
        for stage, s in trial.allocation.settings
    }
    return replace(trial_view(trial, trial.curves), allocation=Allocation.of(renamed))
