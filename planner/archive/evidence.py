"""Evidence as JSON and back, and what a trial's evidence comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from env.calls import Call
from env.execution.evidence import CurvePoint, ExampleEvidence, StageOutcome
from planner.archive.records import KPoint
from planner.archive.tables import EvidenceRow


def standard_error(scores: Sequence[float]) -> float | None:
    """Sample standard deviation / sqrt(n); None below two scores."""
    return float(np.std(scores, ddof=1)) / math.sqrt(len(scores)) if len(scores) > 1 else None


def aggregated_curves(evidence: Sequence[ExampleEvidence]) -> dict[str, tuple[KPoint, ...]]:
    """Curves over k of all scored examples together.

    The score at k is the sum of the examples' values over the sum of their masses; coverage is the mean mass, where an
    example that does not know this k counts with mass 0.
    """
    scored = [example for example in evidence if example.status == "scored"]
    known: dict[str, list[tuple[float, ...]]] = {}
    for example in scored:
        for stage, curve in example.curves.items():
            known.setdefault(stage, []).extend(p if len(p) == 4 else CurvePoint(*p) for p in curve)
    return {stage: _points(np.array(points), len(scored)) for stage, points in known.items() if points}


def _points(points: NDArray[np.float64], examples: int) -> tuple[KPoint, ...]:
    """A stage's curve from all points of all examples, shape (n, 4), in the columns of `CurvePoint`."""
    at = points[np.argsort(points[:, 0], kind="stable")]
    ks, starts = np.unique(at[:, 0], return_index=True)
    values, masses, draws = (np.add.reduceat(at[:, i], starts) for i in (1, 2, 3))
    scores = np.divide(values, masses, out=np.zeros_like(values), where=masses > 0)
    counts = np.diff(np.append(starts, len(at)))
    squares = np.add.reduceat((at[:, 1] - np.repeat(scores, counts) * at[:, 2]) ** 2, starts)
    known = np.add.reduceat((at[:, 2] > 0).astype(np.float64), starts)
    return tuple(
        KPoint(int(k), score, mass / examples, int(n), _ratio_error(square, int(of), mass))
        if mass > 0
        else KPoint(int(k), None, 0.0, int(n))
        for k, score, mass, n, square, of in zip(
            *(column.tolist() for column in (ks, scores, masses, draws, squares, known)), strict=True
        )
    )


def _ratio_error(squares: float, examples: int, mass: float) -> float | None:
    """Standard error of sum(value) / sum(mass) over examples, by linearisation; the plain one where all masses are 1.

    ``sqrt(n / (n - 1) * sum((value - score * mass)^2)) / sum(mass)``, Cochran, Sampling Techniques, section 6.4.

    Args:
        squares: the sum of squares.
        examples: n, those with mass.
        mass: the sum of masses.
    """
    return math.sqrt(examples / (examples - 1) * squares) / mass if examples > 1 else None


def independent_draws(evidence: Sequence[ExampleEvidence]) -> int:
    """Distinct draws that the scores average over: those held of the last stage, a shared prompt's counted once."""
    held: dict[str, int] = {}
    for example in evidence:
        if example.status == "scored" and example.stages:
            last = example.stages[-1]
            held[last.prompt_key] = max(last.held, held.get(last.prompt_key, 0))
    return sum(held.values())


def curves_json(curves: Mapping[str, Sequence[KPoint]]) -> dict[str, Any]:
    """Aggregated curves as JSON; the inverse of `curves_from_json`."""
    return {stage: [dict(vars(point)) for point in points] for stage, points in curves.items()}


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
        # Their fields as they stand: `asdict` copies each value in depth, which took most of a trial's recording.
        "stages": [{**vars(stage), "calls": [vars(call) for call in stage.calls]} for stage in example.stages],
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
        stages=tuple(_outcome(stage) for stage in row.stages),
        curves={stage: tuple(CurvePoint(*point) for point in points) for stage, points in row.curves.items()},
        cost=row.cost,
    )


def _outcome(stored: Mapping[str, Any]) -> StageOutcome:
    calls = tuple(Call(**call) for call in stored.get("calls", ()))
    return StageOutcome(**{**stored, "calls": calls, "other_keys": tuple(stored.get("other_keys", ()))})
