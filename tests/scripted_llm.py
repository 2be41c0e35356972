"""A real HTTP server that answers like an OpenAI-compatible LLM, by a script.

with ScriptedLlm(["{broken", Late(2, "x"), Status(429)], then=guideline_follower()) as llm:
    settings = LlmSettings("scripted", llm.base_url)
    ...
assert len(llm.requests) == ...
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from planner.bench.loopback import LoopbackServer
from planner.bench.scripted import data_block


@dataclass(frozen=True)
class Content:
    """A chat completion with this text."""

    text: str | None
    finish_reason: str = "stop"
    usage: tuple[int, int] | None = (100, 20)
    """Prompt and completion tokens; None leaves usage out, as some servers do."""

    refusal: str | None = None
    tool_calls: tuple[tuple[str, str], ...] = ()
    """Names of tools and their arguments as JSON text."""

    reasoning: int = 0
    """Of the completion tokens; as servers of thinking models state it."""

    cached: int = 0
    """Of the prompt tokens."""


@dataclass(frozen=True)
class Status:
    """An HTTP error in OpenAI's shape."""

    code: int
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Late:
    """Another step, this many seconds late."""

    seconds: float
    step: Step


@dataclass(frozen=True)
class EmptyChoices:
    """A chat completion without choices."""


@dataclass(frozen=True)
class Garbage:
    """HTTP 200 with a body that is no chat completion."""

    body: bytes = b"\x00\xffnot json"
    content_type: str = "application/json"


Json = Mapping[str, Any]
Reply = str | Json | Content | Status | Late | EmptyChoices | Garbage
Script = Callable[[dict[str, Any], int], Reply]
"""The request's JSON and its number (from 0) -> the reply."""

Step = Reply | Script
"""Text or a JSON object are the content of a completion."""


class ScriptedLlm:
    """Serves `/v1/chat/completions` and `/v1/models` on a free loopback port while the context is open.

    Args:
        script: the steps, one a request; or one callable for all requests.
        then: what answers once the steps are used up; by default HTTP 500.
    """

    def __init__(self, script: Sequence[Step] | Script = (), then: Step | None = None) -> None:
        self._steps: Sequence[Step] = [] if callable(script) else script
        after = Status(500, "the script has ended") if then is None else then
        self._then: Step = script if callable(script) else after
        self.requests: list[dict[str, Any]] = []
        """JSON bodies of all requests, in order."""
        self.authorizations: list[str] = []
        """Their Authorization headers."""
        self._server = LoopbackServer(self._app())
        self.base_url = f"{self._server.url}/v1"

    def __enter__(self) -> ScriptedLlm:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)

    @property
    def prompts(self) -> list[str]:
        """All messages of each request as one text."""
        return [prompt_text(request) for request in self.requests]

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body: dict[str, Any] = await request.json()
            number = len(self.requests)
            self.requests.append(body)
            self.authorizations.append(request.headers.get("authorization", ""))
            step = self._steps[number] if number < len(self._steps) else self._then
            return await self._respond(step, body, number)

        @app.get("/v1/models")
        async def models() -> Response:
            return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

        return app

    async def _respond(self, step: Step, body: dict[str, Any], number: int) -> Response:
        if callable(step):
            try:
                step = step(body, number)
            except Exception as failure:
                step = Status(500, f"the script failed: {type(failure).__name__}: {failure}")
        if isinstance(step, Late):
            deadline = time.monotonic() + step.seconds
            while time.monotonic() < deadline and not self._server.stopping:  # noqa: ASYNC110 - set by a thread
                await asyncio.sleep(0.02)
            return await self._respond(step.step, body, number)
        if isinstance(step, Status):
            error = {"message": step.message, "type": "scripted", "param": None, "code": None}
            return JSONResponse({"error": error}, step.code, dict(step.headers))
        if isinstance(step, Garbage):
            return Response(step.body, media_type=step.content_type)
        if isinstance(step, EmptyChoices):
            return JSONResponse(_completion(body, number, [], (100, 0)))
        if isinstance(step, Mapping):
            step = json.dumps(step)
        content = Content(step) if isinstance(step, str) else step
        message: dict[str, Any] = {"role": "assistant", "content": content.text, "refusal": content.refusal}
        if content.tool_calls:
            message["tool_calls"] = [
                {"id": f"call-{number}-{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(content.tool_calls)
            ]
        choices = [{"index": 0, "message": message, "finish_reason": content.finish_reason, "logprobs": None}]
        completion = _completion(body, number, choices, content.usage)
        if content.usage is not None and (content.reasoning or content.cached):
            completion["usage"]["completion_tokens_details"] = {"reasoning_tokens": content.reasoning}
            completion["usage"]["prompt_tokens_details"] = {"cached_tokens": content.cached}
        return JSONResponse(completion)


def _completion(
    body: Json, number: int, choices: list[dict[str, Any]], usage: tuple[int, int] | None
) -> dict[str, Any]:
    completion: dict[str, Any] = {
        "id": f"scripted-{number}",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", "scripted"),
        "choices": choices,
    }
    if usage is not None:
        prompt, output = usage
        completion["usage"] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return completion


def prompt_text(request: Json) -> str:
    """All messages of a request as one text."""
    return "\n\n".join(str(message["content"] or "") for message in request["messages"])


def best_again(request: dict[str, Any], number: int) -> Reply:
    """Proposes the best trial once more, which its prompt shows: a duplicate."""
    best = json.loads(data_block(prompt_text(request), "history"))["trials"][0]
    return {"proposals": [{"allocation": best["allocation"], "reason": "again", "expected_score": 0.5}]}


def refusing(fields: Sequence[str], then: Step, status: int = 400) -> Script:
    """A server that refuses requests with any of these fields, or with a `response_format` of that type."""

    def script(request: dict[str, Any], number: int) -> Reply:
        kind = request.get("response_format", {}).get("type")
        for name in fields:
            if name in request:
                return Status(status, f"Unsupported parameter: '{name}' is not supported with this model.")
            if name == kind:
                return Status(status, f"response_format type '{kind}' is not supported")
        return then(request, number) if callable(then) else then

    return script


def guideline_follower() -> Script:
    """A competent agent: answers both requests from nothing but the prompt it is sent.

    Proposals are feasible by the prompt's own cost formula, new by its history, and neighbours of the best trials.
    Equal prompts get equal answers.
    """

    def script(request: dict[str, Any], number: int) -> Reply:
        # Imported here: a server that only plays failures needs no policy.
        from tests.scripted_policy import answer_guidelines, answer_proposals

        prompt = prompt_text(request)
        form = request.get("response_format", {}).get("json_schema", {}).get("name")
        asked = form or re.findall(r"^Reply name: (\w+)$", prompt, re.MULTILINE)[-1]
        return answer_guidelines(prompt) if asked == "guidelines" else answer_proposals(prompt)

    return script
