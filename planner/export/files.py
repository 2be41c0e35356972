"""The files of an exported plan."""

from __future__ import annotations

import io
import zipfile
from typing import Literal

from pydantic import ValidationError

from env.errors import ApportionError
from env.spec import StudySpec
from planner.archive import Archive, PlanRecord
from planner.export.module import plan_module
from planner.export.servers import ports_of, serve_script, used_models
from planner.plans import PlanDocument

ExportFormat = Literal["yaml", "vllm", "langgraph", "zip"]

EVERY_FILE: tuple[ExportFormat, ...] = ("yaml", "vllm", "langgraph")

NAMES: dict[ExportFormat, str] = {"yaml": "plan.yaml", "vllm": "serve.sh", "langgraph": "plan.py"}
"""The file of each format; zip holds all of them."""


def export_files(
    archive: Archive,
    record: PlanRecord,
    formats: tuple[ExportFormat, ...] = EVERY_FILE,
    remote: bool = False,
) -> dict[str, str]:
    """A plan's files by name.

    Args:
        archive: holds its study.
        record: the plan.
        formats: which files.
        remote: whether the module may ask the plan endpoint for stages that it cannot hold itself.

    Raises:
        NotStandalone: the module cannot hold a stage, and may not ask.
        ApportionError: the study's spec is of another version.
    """
    document = PlanDocument.model_validate(dict(record.document))
    files: dict[str, str] = {}
    if "yaml" in formats:
        files[NAMES["yaml"]] = document.to_yaml()
    if formats == ("yaml",):
        return files
    try:
        spec = StudySpec.model_validate(dict(archive.studies.get(record.study_id).spec))
    except ValidationError as error:
        raise ApportionError(f"the spec of study {record.study_id} is of another version; run it again") from error
    models = used_models(spec, record.allocation)
    ports = ports_of(models)
    if "vllm" in formats:
        files[NAMES["vllm"]] = serve_script(spec, document, models, ports)
    if "langgraph" in formats:
        files[NAMES["langgraph"]] = plan_module(spec, document, record.allocation, ports, record.id, remote)
    return files


def zipped(files: dict[str, str]) -> bytes:
    """The files as a zip archive; the script is executable. The same files give the same bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(entry, text)
    return target.getvalue()
