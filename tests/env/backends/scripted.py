"""A real HTTP server that answers completions and classifications as a script says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Answer = Callable[[dict[str, Any]], Response | Awaitable[Response]]


PATHS = ("/v1/chat/completions", "/v1/completions", "/classify", "/pooling", "/score")


class Script:
    """Answers in turn; the last one for ever. Remembers what it was asked, and where."""

    def __init__(self, *answers: Answer, paths: Sequence[str] = PATHS) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.app = Starlette(routes=[Route(path, self._answer, methods=["POST"]) for path in paths])

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.url.path)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            reply = answer(body)
            return reply if isinstance(reply, Response) else await reply
        finally:
            self.at_once -= 1


def completion(
    body: dict[str, Any], most: int | None = None, logprobs: bool = True, usage: bool = True, finish: str = "stop"
) -> Response:
    """A well-formed reply with the choices asked for, or at most ``most``; 3 tokens a choice and 1 over."""
    count = min(body.get("n", 1), most or 10**6)
    listed = {"content": [{"token": "x", "logprob": -0.5}] * 3} if logprobs else None
    choices = [
        {
            "index": j,
            "message": {"role": "assistant", "content": f"seed {body.get('seed', 0) + j}"},
            "finish_reason": finish,
            "logprobs": listed,
        }
        for j in range(count)
    ]
    reply: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    if usage:
        reply["usage"] = {"prompt_tokens": 7, "completion_tokens": 3 * count + 1, "total_tokens": 0}
    return JSONResponse(reply)


def text_completion(body: dict[str, Any]) -> Response:
    """A well-formed reply of the text completion API."""
    count = body.get("n", 1)
    logprobs = {"tokens": ["x"] * 2, "token_logprobs": [-0.5, -0.25], "top_logprobs": None}
    choices = [
        {"index": j, "text": f" seed {body['seed'] + j}", "finish_reason": "stop", "logprobs": logprobs}
        for j in range(count)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 2 * count, "total_tokens": 0}
    return JSONResponse({"id": "1", "object": "text_completion", "choices": choices, "usage": usage})


def classified(*probs: float, label: str | None = None, tokens: int | None = 9) -> Answer:
    """vLLM's reply of ``/classify``."""
    entry = {"index": 0, "label": label, "probs": list(probs), "num_classes": len(probs)}
    reply: dict[str, Any] = {"id": "1", "object": "list", "model": "m", "data": [entry]}
    if tokens is not None:
        reply["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0}
    return lambda body: JSONResponse(reply)


def pooled(data: list[Any]) -> Answer:
    """vLLM's reply of ``/pooling``."""
    entry = {"index": 0, "object": "pooling", "data": data}
    usage = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}
    return lambda body: JSONResponse({"id": "1", "object": "list", "model": "m", "data": [entry], "usage": usage})


def paired(score: object) -> Answer:
    """vLLM's reply of ``/score``."""
    usage = {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0}
    entry = {"index": 0, "object": "score", "score": score}
    return lambda body: JSONResponse({"id": "score-1", "object": "list", "model": "m", "data": [entry], "usage": usage})


def status(
    code: int, message: str = "no", headers: dict[str, str] | None = None, parameter: str | None = None
) -> Answer:
    """An error in OpenAI's shape."""
    error = {"error": {"message": message, "type": "error", "param": parameter, "code": None}}
    return lambda body: JSONResponse(error, code, headers)


def raw(content: str, media: str = "application/json") -> Answer:
    """Any body with status 200."""
    return lambda body: Response(content, media_type=media)


async def hang(body: dict[str, Any]) -> Response:
    """Answer long after everybody has left."""
    await asyncio.sleep(5)
    return Response()


def refusing(*fields: str, unless: dict[str, Any] | None = None) -> Any:
    """A server that does not know some fields, except for some harmless values."""

    def answer(body: dict[str, Any]) -> Any:
        for name in fields:
            if name in body and body[name] != (unless or {}).get(name):
                return status(400, f"Unsupported value: '{name}' does not support {body[name]}.", parameter=name)(body)
        return completion(body, logprobs="logprobs" in body)

    return answer
