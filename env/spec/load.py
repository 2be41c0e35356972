"""Reads a study spec from YAML, JSON or plain data, completely checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from env.spec.check import check_study
from env.spec.faults import Fault, SpecError, faults_of
from env.spec.study import StudySpec
from env.spec.variants import with_variants

MAX_SPEC_BYTES = 8 * 1024 * 1024

Check = Callable[[StudySpec], list[Fault]]
"""Finds what is wrong with a well-typed spec. `planner.check` knows more than `check_study`."""


def load_spec(path: Path, check: Check = check_study) -> StudySpec:
    """Read and check a spec file.

    Args:
        path: ``.yaml``, ``.yml`` or ``.json``.
        check: finds the faults.

    Raises:
        SpecError: with every fault found.
    """
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise SpecError([Fault("", f"{path} is larger than {MAX_SPEC_BYTES >> 20} MiB")])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Fault("", f"cannot read {path}: {error}")]) from error
    return parse_spec(text, check)


def parse_spec(text: str, check: Check = check_study) -> StudySpec:
    """Read and check a spec written in YAML or JSON (which is YAML).

    Raises:
        SpecError: with every fault found.
    """
    try:
        raw = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise SpecError([Fault("", f"neither YAML nor JSON: {error}")]) from error
    return validated_spec(raw, check)


def validated_spec(raw: Any, check: Check = check_study) -> StudySpec:
    """Check plain data and build the spec, variants of a fleet's models written out.

    Raises:
        SpecError: with every fault found.
    """
    if not isinstance(raw, dict):
        raise SpecError([Fault("", "a study spec is an object with name, pipeline, data and budget")])
    try:
        spec = StudySpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(faults_of(error)) from error
    spec = with_variants(spec)
    faults = check(spec)
    if faults:
        raise SpecError(faults)
    return spec


def spec_schema() -> dict[str, Any]:
    """JSON Schema of a study spec (draft 2020-12)."""
    return StudySpec.model_json_schema()


def spec_yaml(spec: StudySpec) -> str:
    """The spec as YAML, fields in their own order."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
