"""Runs a study in this process without a queue: for libraries, notebooks and fast tests."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from env.backends.pool import Backends
from env.spec import SpecError, StudySpec
from env.spec.variants import with_variants
from planner.archive import Archive, open_archive
from planner.check import check_study
from planner.loop import InProcessSteps, StudyCancelled, StudyContext, run_loop
from planner.plans import PlanDocument


async def run_study(
    spec: StudySpec,
    archive: Archive | str = "sqlite:///apportion.db",
    study_id: str | None = None,
    environ: Mapping[str, str] | None = None,
    backends: Backends | None = None,
) -> PlanDocument:
    """Run a study from start to plan.

    A study id that the archive holds goes on where it stopped: what is settled is not drawn again.

    Args:
        spec: the study.
        archive: an open archive, or its URL.
        study_id: to continue or name it; new by default.
        environ: where to look for the agent's LLM; the process's environment by default.
        backends: models to use instead of those of the spec.

    Raises:
        SpecError: the spec has faults.
        ApportionError: the study failed; the archive keeps what it drew.
    """
    spec = with_variants(spec)
    faults = check_study(spec)
    if faults:
        raise SpecError(faults)
    opened = open_archive(archive) if isinstance(archive, str) else archive
    try:
        study = opened.studies.create(
            study_id or uuid.uuid4().hex[:12], spec.name, spec.model_dump(mode="json"), spec.seed
        )
        opened.studies.set_status(study.id, "running")
        context: StudyContext | None = None
        try:
            context = StudyContext(opened, study.id, environ, backends)
            await run_loop(context, InProcessSteps())
        except StudyCancelled:
            opened.studies.set_status(study.id, "cancelled")
            raise
        except Exception as error:
            opened.studies.set_status(study.id, "failed", str(error))
            raise
        finally:
            if context is not None:
                await context.close()
        opened.studies.set_status(study.id, "done")
        return PlanDocument.model_validate(dict(opened.plans.get(study.id).document))
    finally:
        if isinstance(archive, str):
            opened.close()
