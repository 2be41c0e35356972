"""Which plan, point of its front and stage a model's name means."""

from __future__ import annotations

from dataclasses import dataclass

from api.completions.errors import CompletionError
from env.allocation import Allocation
from env.errors import ApportionError
from planner.archive import Archive, PlanRecord
from planner.plans import PlanDocument
from planner.serving import PlanReference, find_plan, point_within
from planner.serving.reference import PlanPoint

PLAN, STAGE = "plan:", "stage:"


@dataclass(frozen=True)
class Target:
    """What a model's name resolves to, now."""

    model: str
    record: PlanRecord
    document: PlanDocument
    reference: PlanReference
    point: PlanPoint
    stage: str | None
    """The stage that is asked alone; None for the whole pipeline."""

    @property
    def allocation(self) -> Allocation:
        """Of the chosen point."""
        return self.point.allocation


def target_of(archive: Archive, model: str) -> Target:
    """Resolve a model's name; reads the archive.

    Raises:
        CompletionError: the name has another form, or the budget buys no point of the front, or there is no such stage.
        NotFound: there is no such plan.
    """
    if model.startswith(PLAN):
        text, stage = model.removeprefix(PLAN), None
    elif model.startswith(STAGE):
        text, slash, stage = model.removeprefix(STAGE).rpartition("/")
        if not slash:
            raise _no_model(f"{model[:200]!r} names no stage: write stage:<plan>/<stage>")
    else:
        raise _no_model(
            f"no model is called {model[:200]!r}; there are plan:<name or study>, plan:<name>@<budget> and "
            "stage:<plan>/<stage>, listed at /v1/models"
        )
    try:
        reference = PlanReference.parse(text)
    except ApportionError as error:
        raise _no_model(str(error)) from None
    record = find_plan(archive, reference)
    document = PlanDocument.model_validate(dict(record.document))
    try:
        point = point_within(document, reference.budget)
    except ApportionError as error:
        raise CompletionError(400, str(error), "model", "budget_too_small") from None
    if stage is not None and stage not in point.allocation.stages:
        listed = ", ".join(point.allocation.stages)
        raise _no_model(f"plan {text} has no stage {stage[:100]!r}; it has {listed}")
    return Target(model, record, document, reference, point, stage)


def _no_model(message: str) -> CompletionError:
    return CompletionError(404, message, "model", "model_not_found")
