"""How clients say which plan they mean, and at which budget: ``<name or study id>[:best][@<budget>]``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import cast

from env.allocation import Allocation
from env.errors import ApportionError
from planner.archive import Archive, NotFound, PlanKind, PlanRecord
from planner.plans import PlanDocument, amount

NAME = r"[A-Za-z][A-Za-z0-9_.-]{0,63}"
"""Names of plans: no colon, no slash, no @, so that a reference reads one way only."""

_REFERENCE = re.compile(r"(?P<plan>[A-Za-z0-9][A-Za-z0-9_.-]{0,199})(:(?P<kind>chosen|best))?(@(?P<budget>[^@/:]+))?")
_NUMBER = re.compile(r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)([kMGTP]?)")
_SCALE = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


@dataclass(frozen=True)
class PlanReference:
    """A plan as a client names it."""

    plan: str
    """A promoted name, or a study's id."""

    kind: PlanKind | None = None
    """None: what the name was promoted as; of a study the chosen one."""

    budget: float | None = None
    """Most cost per query, in the plan's unit; None for the plan itself."""

    @classmethod
    def parse(cls, text: str) -> PlanReference:
        """Read ``name``, ``name:best``, ``name@2.5e8`` or ``name@250M``.

        Raises:
            ApportionError: the text has another form.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise ApportionError(
                f"{text[:200]!r} names no plan: write a promoted name or a study's id, perhaps with :best and with "
                "@budget behind it, as in qa@2.5e8"
            )
        kind = cast("PlanKind | None", found["kind"])
        return cls(found["plan"], kind, None if found["budget"] is None else _budget(found["budget"]))


def find_plan(archive: Archive, reference: PlanReference, loosely: bool = False) -> PlanRecord:
    """The plan a reference names now: promoted names come before study ids.

    Args:
        archive: holds the plans.
        reference: which.
        loosely: also by a study's name or the start of its id, for people; what programs rely on must not change its
            meaning when another study is added.

    Raises:
        NotFound: there is none, or the study that was promoted is gone.
        Ambiguous: the start of an id fits several studies.
    """
    history = archive.promotions.history(reference.plan, 1)
    if history:
        study, kind = history[0].study_id, reference.kind or history[0].kind
        try:
            return archive.plans.get(study, kind)
        except NotFound:
            raise NotFound(
                f"{reference.plan!r} stands for the {kind} plan of study {study}, which the archive no longer has; "
                "promote another"
            ) from None
    kind = reference.kind or "chosen"
    if loosely:
        return archive.plans.get(archive.studies.find(reference.plan).id, kind)
    try:
        return archive.plans.get(reference.plan, kind)
    except NotFound:
        raise NotFound(
            f"there is no plan {reference.plan!r}: no plan was promoted under this name, and no study with this id has "
            "a plan"
        ) from None


@dataclass(frozen=True)
class PlanPoint:
    """An allocation that a plan offers."""

    allocation: Allocation
    predicted_cost: float
    score: float | None
    """Of the plan itself on the test split; of other points on the search split, uncorrected."""

    trial_no: int | None
    """The search trial behind a point of the front; None for the plan itself."""


def point_within(document: PlanDocument, budget: float | None) -> PlanPoint:
    """The point of the front with the highest cost per query within a budget, which is the best one it buys.

    Args:
        document: the plan; without a budget the plan's own allocation.
        budget: in the plan's unit.

    Raises:
        ApportionError: the budget buys none; the message names the cheapest.
    """
    if budget is None:
        score = None if document.test_score is None else document.test_score.estimate
        return PlanPoint(Allocation.from_json(document.allocation), document.predicted_cost, score, None)
    affordable = [p for p in document.pareto if p.predicted_cost <= budget * (1 + 1e-9)]
    if not affordable:
        cheapest = min((p.predicted_cost for p in document.pareto), default=document.predicted_cost)
        raise ApportionError(
            f"a budget of {amount(budget, document.unit)} a query buys no point of this plan's front; the cheapest "
            f"costs {amount(cheapest, document.unit)} ({cheapest:.6g})"
        )
    best = max(affordable, key=lambda p: (p.predicted_cost, p.score))
    return PlanPoint(Allocation.from_json(best.allocation), best.predicted_cost, best.score, best.trial_no)


def budget_text(value: float) -> str:
    """A budget that buys a point of this cost, as short as clients can write it: ``4.262M``."""
    letter = max((one for one in _SCALE if _SCALE[one] <= value), key=lambda one: _SCALE[one], default="")
    scaled = value / _SCALE[letter]
    digits = max(0, 3 - math.floor(math.log10(scaled))) if scaled > 0 else 0
    return f"{math.ceil(scaled * 10**digits) / 10**digits:.{digits}f}{letter}"


def _budget(text: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    value = float(found[1]) * _SCALE[found[2]] if found else math.nan
    if not (math.isfinite(value) and value > 0):
        raise ApportionError(
            f"{text[:100]!r} is no budget: write a number above 0 in the plan's unit, as 2.5e8 or 250M"
        )
    return value
