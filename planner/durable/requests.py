"""What people ask of a study that runs somewhere: to stop, or to pause. Needs the archive only."""

from __future__ import annotations

from planner.archive import Archive, StudyRecord


def request_cancel(archive: Archive, study_id: str) -> StudyRecord:
    """Ask a study to stop: one that waits or pauses ends at once, one that runs within seconds; what it drew is kept.

    Raises:
        NotFound: no such study.
    """
    study = archive.studies.request_cancel(study_id)
    if study.status == "cancelled":
        _say(archive, study, "status-cancelled")
    return study


def request_pause(archive: Archive, study_id: str) -> StudyRecord:
    """Ask a study to pause: one that waits does at once, one that runs before its next batch of trials.

    Raises:
        NotFound: no such study.
        StatusConflict: it has ended.
    """
    study = archive.studies.request_pause(study_id)
    if study.status == "paused":
        _say(archive, study, f"status-paused-{archive.leases.get(study_id).epoch}")
    return study


def _say(archive: Archive, study: StudyRecord, key: str) -> None:
    archive.events.append(study.id, "status", {"status": study.status, "error": ""}, key)
