"""The engine's HTTP server: OpenAI's protocol over checkpoints in this process.

Requests that arrive together share one decode batch, so that concurrency gives throughput. The same seed gives the same
reply: choice ``j`` of seed ``s`` is choice 0 of seed ``s + j``.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException

from env.engine.engine import Engine
from env.engine.jobs import Job
from env.engine.protocol import ChatRequest, ClassifyRequest, CompletionRequest, SampledRequest
from env.engine.replies import Json, ReplyShape, classification, error_body, model_list, pooled
from env.engine.requests import RequestError, chat_tokens, completion_tokens, make_jobs, run_jobs, score_inputs
from env.engine.sharing import lease_engine
from env.engine.streaming import stream_jobs
from env.errors import BackendError

KEY_VARIABLE = "APPORTION_ENGINE_API_KEY"
"""Environment variable with the token that clients must send; needed for any bind beyond loopback."""

_KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none is closed just as a request arrives on it."""


def create_engine_app(engines: Mapping[str, Engine], api_key: str | None = None) -> FastAPI:
    """The application; closing the engines is the caller's.

    Args:
        engines: by the name clients ask for.
        api_key: bearer token that every call but ``/health`` must carry; None for none.
    """
    app = FastAPI(title="Apportion engine", docs_url=None, redoc_url=None)
    created = int(time.time())
    _answer_errors(app)
    if api_key is not None:
        _require_key(app, api_key)

    def engine_of(name: str) -> Engine:
        if name not in engines:
            known = ", ".join(engines)
            message = f"no model is called {name!r}; served here: {known}"
            raise RequestError(message, status=404, parameter="model", code="model_not_found")
        return engines[name]

    @app.get("/health")
    async def health() -> Json:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> Json:
        return model_list([(name, engine.config.max_positions) for name, engine in engines.items()], created)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        engine = engine_of(body.model)
        prompts = await chat_tokens(engine, body)
        shape = ReplyShape(engine.tokenizer, body.model, chat=True, logprobs=bool(body.logprobs))
        partial = body.messages[-1].plain().content if body.ending == "open" else ""
        jobs = _jobs(engine, body, prompts, engine.config.max_positions, [partial])
        return await _reply(engine, body, jobs, shape, request)

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        engine = engine_of(body.model)
        prompts, texts = await completion_tokens(engine, body.prompts())
        shape = ReplyShape(engine.tokenizer, body.model, chat=False, logprobs=body.logprobs is not None)
        return await _reply(engine, body, _jobs(engine, body, prompts, 16, texts), shape, request)

    @app.post("/classify")
    async def classify(body: ClassifyRequest) -> Json:
        scores, tokens = await score_inputs(engine_of(body.model), body)
        return classification(body.model, scores, tokens)

    @app.post("/pooling")
    async def pooling(body: ClassifyRequest) -> Json:
        scores, tokens = await score_inputs(engine_of(body.model), body)
        return pooled(body.model, scores, tokens)

    return app


def serve(
    models: Mapping[str, Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    api_key: str | None = None,
    max_rows: int = 512,
) -> None:
    """Load checkpoints and serve them until the process is told to stop (blocking).

    Args:
        models: checkpoint folders by the name clients ask for.
        host: address to bind; anything but loopback needs a token.
        port: TCP port.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        api_key: bearer token; read from ``APPORTION_ENGINE_API_KEY`` where None.
        max_rows: draws decoded at once.

    Raises:
        CheckpointError: a folder is no checkpoint that the engine serves.
        BackendError: the bind needs a token and there is none.
    """
    import uvicorn

    api_key = api_key or os.environ.get(KEY_VARIABLE) or None
    if api_key is None and not _is_loopback(host):
        raise BackendError(f"serving on {host} needs a token: set {KEY_VARIABLE}, or bind 127.0.0.1")
    with ExitStack() as leases:
        engines = {}
        for name, checkpoint in models.items():
            lease = lease_engine(checkpoint, device, max_rows=max_rows)
            leases.callback(lease.release)
            engines[name] = lease.engine
        app = create_engine_app(engines, api_key)
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_keep_alive=_KEEP_ALIVE_S)


def _jobs(
    engine: Engine, body: SampledRequest, prompts: Sequence[Sequence[int]], default_tokens: int, partials: Sequence[str]
) -> list[Job]:
    seed = secrets.randbits(31) if body.seed is None else body.seed
    return make_jobs(engine, prompts, body.sampling(seed, default_tokens), body.n, partials)


async def _reply(
    engine: Engine, body: SampledRequest, jobs: Sequence[Job], shape: ReplyShape, request: Request
) -> Response:
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return EventSourceResponse(stream_jobs(engine, jobs, shape, with_usage), sep="\n")
    await run_jobs(engine, jobs, request)
    return Response(shape.completion(jobs), media_type="application/json")


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        return JSONResponse(error_body(str(error), error.status, error.parameter, error.code), error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"] if part != "body") or None
        message = problem["msg"].removeprefix("Value error, ")
        return JSONResponse(error_body(f"{field}: {message}" if field else message, 400, field), 400)

    @app.exception_handler(HTTPException)
    async def failed(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(str(error.detail), error.status_code), error.status_code)


def _require_key(app: FastAPI, api_key: str) -> None:
    @app.middleware("http")
    async def check(request: Request, call_next):  # type: ignore[no-untyped-def]
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path != "/health" and not secrets.compare_digest(given.encode(), api_key.encode()):
            return JSONResponse(error_body("missing or wrong API key", 401, code="invalid_api_key"), 401)
        return await call_next(request)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
