"""Checks a spec completely: what the environment knows of it, and whether its proposer can be had here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from env.spec import Fault, StudySpec, load
from env.spec import check as environment
from planner.proposers.registry import proposer_problem


def check_study(spec: StudySpec) -> list[Fault]:
    """Every fault of a well-typed spec; an empty list means the study can run.

    A proposer that a package registered is imported here, so that one that is broken is found before a study is queued.
    """
    problem = proposer_problem(spec.proposer.kind)
    return environment.check_study(spec) + ([Fault("proposer.kind", problem)] if problem else [])


def validated_spec(raw: Any) -> StudySpec:
    """Check plain data and build the spec.

    Raises:
        SpecError: with every fault found.
    """
    return load.validated_spec(raw, check_study)


def load_spec(path: Path) -> StudySpec:
    """Read and check a spec file.

    Raises:
        SpecError: with every fault found.
    """
    return load.load_spec(path, check_study)
