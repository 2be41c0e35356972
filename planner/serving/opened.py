"""A plan opened to answer: its pipeline over its models, as the study ran them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import ValidationError

from env.backends.pool import BackendPool
from env.costs import CostOptions
from env.errors import ApportionError
from env.execution.live import LivePipeline
from env.spec import StudySpec
from env.spec.pipeline import JudgeModel
from planner.archive import Archive, PlanRecord
from planner.plans import PlanDocument


@dataclass
class OpenedPlan:
    """A study's pipeline with its models; serves every plan and every point of the front of that study."""

    study_id: str
    study: str
    """The study's name."""

    spec: StudySpec
    live: LivePipeline
    changed: tuple[str, ...] = ()
    """Models whose weights are not the ones the study measured: what its plan says of them may no longer hold."""

    _pool: BackendPool = field(repr=False, default_factory=lambda: BackendPool({}))

    async def close(self) -> None:
        """Release its models; engines that nobody else uses are unloaded."""
        await self._pool.close()


def open_plan(archive: Archive, record: PlanRecord) -> OpenedPlan:
    """Open the models of a plan. Blocking: reads the archive, and checkpoints to tell which weights they hold.

    Raises:
        ApportionError: the study is gone, of another version, or a model's checkpoint or server cannot be used.
    """
    study = archive.studies.get(record.study_id)
    try:
        spec = StudySpec.model_validate(dict(study.spec))
    except ValidationError as error:
        raise ApportionError(
            f"the spec of study {study.id} is of another version ({error.error_count()} faults); run it again"
        ) from error
    document = PlanDocument.model_validate(dict(record.document))
    pool = BackendPool(spec.pipeline.models, tenant=f"plan {study.id}")
    for engine in document.engines:
        pool.serve_as(engine.model, engine.served)
    live = LivePipeline(spec.pipeline, spec.budget.plan.unit, pool, CostOptions.of(spec.budget.plan))
    return OpenedPlan(study.id, study.name, spec, live, _changed(spec, document, pool), pool)


def _changed(spec: StudySpec, document: PlanDocument, pool: BackendPool) -> tuple[str, ...]:
    changed = []
    for name, model in spec.pipeline.models.items():
        measured = document.provenance.models.get(name)
        if isinstance(model, JudgeModel) or not measured:
            continue
        try:
            now = pool.backend(name).identity.revision
        except ApportionError:
            continue  # the plan may never ask it; a query that does is told why it cannot
        if now != measured:
            changed.append(name)
    return tuple(changed)
