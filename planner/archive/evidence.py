"""Evidence as JSON and back, and what a trial's evidence comes to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from env.execution.evidence import ExampleEvidence, StageOutcome
from planner.archive.records import KPoint
from planner.archive.tables import EvidenceRow


def standard_error(scores: Sequence[float]) -> float | None:
    """Sample standard deviation / sqrt(n); None below two scores."""
    return statistics.stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None


def aggregated_curves(evidence: Sequence[ExampleEvidence]) -> dict[str, tuple[KPoint, ...]]:
    """Curves over k of all scored examples together.

    The score at k is the sum of the examples' values over the sum of their masses; coverage is the mean mass, where an
    example that does not know this k counts with mass 0.
    """
    scored = [example for example in evidence if example.status == "scored"]
    known: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for example in scored:
        for stage, curve in example.curves.items():
            for k, value, mass in curve:
                known.setdefault(stage, {}).setdefault(k, []).append((value, mass))
    return {
        stage: tuple(_point(k, by_k[k], len(scored)) for k in sorted(by_k)) for stage, by_k in known.items() if by_k
    }


def _point(k: int, known: Sequence[tuple[float, float]], examples: int) -> KPoint:
    mass = math.fsum(m for _, m in known)
    score = math.fsum(v for v, _ in known) / mass if mass > 0 else None
    return KPoint(k, score, mass / examples)


def curves_json(curves: Mapping[str, Sequence[KPoint]]) -> dict[str, Any]:
    """Aggregated curves as JSON; the inverse of `curves_from_json`."""
    return {stage: [asdict(point) for point in points] for stage, points in curves.items()}


def curves_from_json(value: Mapping[str, Any]) -> dict[str, tuple[KPoint, ...]]:
    """Aggregated curves from JSON."""
    return {stage: tuple(KPoint(**point) for point in points) for stage, points in value.items()}


def evidence_values(study_id: str, trial_no: int, position: int, example: ExampleEvidence) -> dict[str, Any]:
    """The columns of one example's evidence."""
    return {
        "study_id": study_id,
        "trial_no": trial_no,
        "example_id": example.example_id,
        "position": position,
        "status": example.status,
        "score": example.score,
        "realised": example.realised,
        "reason": example.reason,
        "cost": example.cost,
        "stages": [asdict(stage) for stage in example.stages],
        "curves": {stage: [list(point) for point in points] for stage, points in example.curves.items()},
    }


def evidence_of(row: EvidenceRow) -> ExampleEvidence:
    """One example's evidence, exactly as it was recorded."""
    return ExampleEvidence(
        example_id=row.example_id,
        status=cast(Any, row.status),
        score=row.score,
        realised=row.realised,
        reason=row.reason,
        stages=tuple(StageOutcome(**stage) for stage in row.stages),
        curves={stage: tuple((k, value, mass) for k, value, mass in points) for stage, points in row.curves.items()},
        cost=row.cost,
    )
