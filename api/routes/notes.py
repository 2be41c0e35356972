"""What people write about a study; edited under an ETag, so that nobody's words are lost unseen."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.dependencies import ArchiveDep, StudyDep
from api.etags import CONDITIONAL, EDITED, IfMatch, etag, holds, versions
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS
from api.schemas import NotesPublic

router = APIRouter(prefix="/studies", tags=["studies"], responses=PROBLEMS)


@router.get("/{study_id}/notes", response_model=NotesPublic, responses={**NOT_FOUND, **CONDITIONAL})
def get_notes(request: Request, study: StudyDep) -> Response:
    """The notes with their ETag, which an edit sends back."""
    headers = {"ETag": etag(study.notes_version), "Cache-Control": "no-cache"}
    if holds(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(NotesPublic(notes=study.notes).model_dump_json(), media_type="application/json", headers=headers)


@router.put("/{study_id}/notes", responses={**NOT_FOUND, **EDITED})
def put_notes(
    study: StudyDep, body: NotesPublic, archive: ArchiveDep, response: Response, if_match: IfMatch = None
) -> NotesPublic:
    """Replace the notes that were read under the ETag sent as If-Match."""
    changed = archive.studies.set_notes(study.id, body.notes, versions(if_match))
    response.headers["ETag"] = etag(changed.notes_version)
    return NotesPublic(notes=changed.notes)
