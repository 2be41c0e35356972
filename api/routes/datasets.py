"""Data sets: uploaded as JSONL, CSV or Parquet, checked row by row, used in specs by the path they are given."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from api.dependencies import NO_NUL, ArchiveDep
from api.paging import PagingDep
from api.problems import Problem, Refused
from api.routes.spec_bodies import NOT_FOUND, PROBLEMS, UNSUPPORTED
from api.schemas import DatasetName, DatasetPublic, Page, RowPublic
from planner.datasets import FORMATS, DatasetFormat, DatasetStore, DiskFull, Limits

router = APIRouter(prefix="/datasets", tags=["datasets"], responses=PROBLEMS)

CHUNK = 1024 * 1024
MEDIA_TYPES: dict[str, DatasetFormat] = {
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/jsonlines": "jsonl",
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
}
_LINES = '{"question": "Capital of France?", "answer": "Paris"}\n{"question": "Of Peru?", "answer": "Lima"}\n'
_TABLE = "question,answer\nCapital of France?,Paris\nOf Peru?,Lima\n"
_FORM = {"type": "object", "required": ["file"], "properties": {"file": {"type": "string", "format": "binary"}}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The rows: an object a line, or a table with a column a field. Each has `answer` (or `answers`, "
        "a list), perhaps a unique `id`, and the fields that prompts name.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}, "example": _LINES},
            "text/csv": {"schema": {"type": "string"}, "example": _TABLE},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {"schema": _FORM},
        },
    }
}
UPLOADED: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "Another data set has this name, or the data root cannot be written."},
    507: {"model": Problem, "description": "The disk of the data root is full; nothing was kept."},
    **UNSUPPORTED,
}
NEEDED: dict[int | str, dict[str, Any]] = {
    409: {"model": Problem, "description": "A schedule or an unfinished study reads it."}
}


def get_store(request: Request, archive: ArchiveDep) -> DatasetStore:
    """The data sets of this service."""
    limits: Limits = request.app.state.uploads
    return DatasetStore(archive, limits)


StoreDep = Annotated[DatasetStore, Depends(get_store)]
Name = Annotated[str, Path(max_length=64, pattern=NO_NUL, description="The data set's name.")]


@router.post("", status_code=201, response_model=DatasetPublic, openapi_extra=BODY, responses=UPLOADED)
async def upload_dataset(
    request: Request,
    response: Response,
    store: StoreDep,
    name: Annotated[DatasetName, Query(description="Unique: small letters, digits, dots, hyphens, underscores.")],
    format: Annotated[DatasetFormat | None, Query(description="Else by the media type or the file's ending.")] = None,
) -> DatasetPublic:
    """Upload a data set and check its rows; kept as JSON Lines below the data root, or not at all.

    The answer's `data` is what a spec's `data` needs to read it. Sending the same rows under the same name again is no
    fault.
    """
    with store.incoming() as file:
        told = await _receive(request, store, file)
        kind = format or told
        if kind is None:
            raise Refused(415, f"send {', '.join(sorted(MEDIA_TYPES))} or multipart/form-data, or state `format`")
        record = await asyncio.to_thread(store.keep, name, file, kind)
    answer = DatasetPublic.of(record)
    response.headers["Location"] = answer.links["self"]
    return answer


@router.get("")
def list_datasets(archive: ArchiveDep, paging: PagingDep) -> Page[DatasetPublic]:
    """Data sets by name."""
    after = paging.after(str)
    records = archive.datasets.page(paging.wanted, after[0] if after else None)
    return paging.page(records, lambda record: (record.name,), DatasetPublic.of)


@router.get("/{name}", responses=NOT_FOUND)
def get_dataset(name: Name, archive: ArchiveDep) -> DatasetPublic:
    """One data set."""
    return DatasetPublic.of(archive.datasets.get(name))


@router.get("/{name}/rows", responses=NOT_FOUND)
def list_dataset_rows(name: Name, store: StoreDep, archive: ArchiveDep, paging: PagingDep) -> Page[RowPublic]:
    """A data set's rows in their order."""
    after = paging.after(int)
    first = max(0, after[0]) if after else 0
    rows = store.rows(archive.datasets.get(name), first, paging.wanted)
    numbered = list(enumerate(rows, first + 1))
    return paging.page(numbered, lambda pair: (pair[0],), lambda pair: RowPublic(number=pair[0], row=pair[1]))


@router.delete("/{name}", status_code=204, responses={**NOT_FOUND, **NEEDED})
def delete_dataset(name: Name, store: StoreDep) -> None:
    """Delete a data set and its file; refused while a schedule or an unfinished study reads it."""
    store.delete(name)


async def _receive(request: Request, store: DatasetStore, file: IO[bytes]) -> DatasetFormat | None:
    """Write the request's rows to a file; their format as its headers tell it."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media != "multipart/form-data":
            await _write(store, file, request.stream())
            return MEDIA_TYPES.get(media)
        async with request.form(max_files=1, max_fields=8) as form:
            sent = form.get("file")
            if not isinstance(sent, UploadFile):
                raise Refused(422, "the form has no file; send it as the part `file`")
            await _write(store, file, _chunks(sent))
            return _format_of(sent)
    except ClientDisconnect:
        raise Refused(400, "the upload was cut off; nothing was kept") from None
    except OSError as error:
        # Large parts of a form wait in the system's folder for temporary files.
        if error.errno == errno.ENOSPC:
            raise DiskFull("the disk for temporary files is full; free space and send it again") from error
        raise


async def _write(store: DatasetStore, file: IO[bytes], chunks: AsyncIterator[bytes]) -> None:
    async for chunk in chunks:
        await asyncio.to_thread(store.write, file, chunk)


async def _chunks(sent: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await sent.read(CHUNK):
        yield chunk


def _format_of(sent: UploadFile) -> DatasetFormat | None:
    ending = (sent.filename or "").rpartition(".")[2].lower()
    named = next((format for format in FORMATS if format == ending), None)
    return named or MEDIA_TYPES.get((sent.content_type or "").partition(";")[0].strip().lower())
