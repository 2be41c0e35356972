"""``/v1``: chat completions and models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse

from api.completions.answering import Answered, answer
from api.completions.desk import Desk
from api.completions.errors import CompletionError, completion_error, error_body
from api.completions.listing import model_list, model_of
from api.completions.requests import ChatRequest
from api.completions.shapes import ReplyShape
from api.completions.targets import target_of
from api.dependencies import ArchiveDep

Result = TypeVar("Result")

_ERROR: dict[str, Any] = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "properties": {
                            "message": {"type": "string"},
                            "type": {"type": "string"},
                            "param": {"type": ["string", "null"]},
                            "code": {"type": ["string", "null"]},
                        },
                    }
                },
            }
        }
    }
}
_WORDS = {
    400: "The request cannot be honoured; the error names the field.",
    404: "No such plan or stage.",
    429: "Too many queries wait.",
    502: "A model server failed.",
    503: "The plan cannot be opened, its server is down, or no place became free in time.",
}
ERRORS: dict[int | str, dict[str, Any]] = {status: {"description": words, **_ERROR} for status, words in _WORDS.items()}

router = APIRouter(prefix="/v1", tags=["plan endpoint"], responses=ERRORS)


def get_desk(request: Request) -> Desk:
    """The process's open plans."""
    return cast(Desk, request.app.state.desk)


DeskDep = Annotated[Desk, Depends(get_desk)]


@router.get("/models")
def list_served_models(archive: ArchiveDep) -> dict[str, Any]:
    """Plans and stages that can be asked: promoted names, and the newest studies."""
    return model_list(archive)


@router.get("/models/{model:path}")
def get_model(model: Annotated[str, Path(max_length=400)], archive: ArchiveDep) -> dict[str, Any]:
    """One plan, point of a front or stage, with its allocation."""
    return model_of(target_of(archive, model))


@router.post(
    "/chat/completions",
    response_model=None,
    responses={200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer."}},
)
async def create_chat_completion(body: ChatRequest, request: Request, archive: ArchiveDep, desk: DeskDep) -> Response:
    """Answer a chat request by a plan, or by one stage of it."""
    target = await asyncio.to_thread(target_of, archive, body.model)
    seed = secrets.randbits(62) if body.seed is None else body.seed
    shape = ReplyShape(target, seed)
    await _unless_gone(request, desk.admission.enter())
    if not body.stream:
        work = asyncio.create_task(answer(desk, target, body, seed))
        work.add_done_callback(lambda _: desk.admission.leave())
        return JSONResponse(shape.completion(await _unless_gone(request, work)))
    texts: asyncio.Queue[str | None] = asyncio.Queue()
    work = asyncio.create_task(answer(desk, target, body, seed, texts.put_nowait))
    work.add_done_callback(lambda _: desk.admission.leave())
    work.add_done_callback(lambda _: texts.put_nowait(None))
    return EventSourceResponse(
        _streamed(work, texts, shape, body.with_usage),
        ping=desk.keep_alive_s,
        sep="\n",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _streamed(
    work: asyncio.Task[Answered], texts: asyncio.Queue[str | None], shape: ReplyShape, with_usage: bool
) -> AsyncIterator[str]:
    """The data of each server-sent event; leaving early drops the work."""
    try:
        yield json.dumps(shape.beginning())
        while (text := await texts.get()) is not None:
            yield json.dumps(shape.piece(text))
        answered = await work
        rest = (answered.content or "")[len(answered.sent) :]
        if rest:
            yield json.dumps(shape.piece(rest))
        yield json.dumps(shape.ending(answered))
        if with_usage:
            yield json.dumps(shape.usage_chunk(answered))
        yield "[DONE]"
    except Exception as error:
        # The status was sent long ago: the error is an event, which clients raise.
        yield json.dumps(error_body(completion_error(error)))
    finally:
        work.cancel()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Result] | asyncio.Task[Result]) -> Result:
    """The result of some work, which is dropped where the client leaves before it is there.

    Raises:
        CompletionError: the client left.
    """
    running = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise CompletionError(499, "the client closed the connection")
        return running.result()
    finally:
        gone.cancel()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await running


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
