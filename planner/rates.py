"""How fast models were in earlier studies of an archive."""

from __future__ import annotations

from env.spec import StudySpec
from planner.archive import Archive, StudyRecord
from planner.forecast import Rates

LOOKED_AT = 50
"""Finished studies looked through, the newest."""


def measured_rates(archive: Archive, spec: StudySpec) -> Rates | None:
    """Times of the newest finished study whose pipeline has exactly these models; None where there is none.

    Raises:
        ArchiveError: the database failed.
    """
    models = spec.model_dump(mode="json")["pipeline"]["models"]
    for study in archive.studies.list(LOOKED_AT, status="done"):
        if _models(study) == models:
            rates = _rates(archive, study)
            if rates is not None:
                return rates
    return None


def _models(study: StudyRecord) -> object:
    pipeline = study.spec.get("pipeline")
    return pipeline.get("models") if isinstance(pipeline, dict) else None


def _rates(archive: Archive, study: StudyRecord) -> Rates | None:
    usages = archive.ledgers.usages(study.id)
    flops = usages["search_flops"].settled if "search_flops" in usages else 0.0
    seconds = sum(t.spend.seconds for t in archive.trials.list(study.id, "search", curves=False))
    if flops <= 0 or seconds <= 0:
        return None
    gpu = usages["search_gpu_seconds"].settled / flops if "search_gpu_seconds" in usages else None
    return Rates(seconds / flops, gpu, f"study {study.id} ({study.name})")
