"""Turns checked HTTP requests into jobs and runs them, dropping what a client no longer waits for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from starlette.requests import Request

from env.backends._base import Sampling
from env.engine.engine import Engine
from env.engine.jobs import Job
from env.engine.protocol import ChatRequest, ClassifyRequest
from env.errors import ApportionError

_LOOK_S = 0.5
"""Seconds between two looks at whether the client is still there."""


class RequestError(Exception):
    """A request that is answered with an error."""

    def __init__(self, message: str, status: int = 400, parameter: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.parameter = parameter
        self.code = code


async def chat_tokens(engine: Engine, body: ChatRequest) -> list[list[int]]:
    """The one prompt of a chat request.

    Raises:
        RequestError: the chat template refuses the messages.
    """
    try:
        messages = [message.plain() for message in body.messages]
        return await asyncio.to_thread(engine.tokenizer.encode_chats, [messages], body.ending)
    except ApportionError as error:
        raise RequestError(str(error), parameter="messages") from error


async def completion_tokens(engine: Engine, prompts: list[str] | list[list[int]]) -> tuple[list[list[int]], list[str]]:
    """Tokens and texts of the prompts of a text completion request; token ids are taken as they are."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    encoded = await asyncio.to_thread(engine.tokenizer.encode_texts, texts)
    vocabulary = engine.config.vocab_size
    tokens = [prompt for prompt in prompts if not isinstance(prompt, str)]
    known = [[token for token in prompt if token < vocabulary] for prompt in tokens]
    return [*encoded, *tokens], [*texts, *(engine.tokenizer.decode(known) if known else [])]


def make_jobs(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling, n: int, partials: Sequence[str]
) -> list[Job]:
    """One job for each prompt, with ``n`` choices; ``partials`` are the texts they continue, empty for a fresh answer.

    Raises:
        RequestError: the checkpoint is a verifier, or a prompt or a parameter cannot be served.
    """
    if engine.config.task != "generate":
        raise RequestError("this model is a verifier: ask /classify", parameter="model")
    if not prompts:
        raise RequestError("there is no prompt", parameter="prompt")
    indices = tuple(range(n))
    jobs = [
        Job(tokens, sampling, indices, consecutive_seeds=True, partial=partial)
        for tokens, partial in zip(prompts, partials, strict=True)
    ]
    for job in jobs:
        objection = job.objection(engine.config.max_positions, engine.config.vocab_size)
        if objection is not None:
            raise RequestError(objection)
    return jobs


async def run_jobs(engine: Engine, jobs: Sequence[Job], request: Request) -> None:
    """Run jobs to their end, or until the client is gone.

    Raises:
        RequestError: a job failed, or the client left.
    """

    async def run() -> None:
        async for job in engine.generate(jobs):
            if job.failure is not None:
                raise RequestError(job.failure, status=500)

    running = asyncio.create_task(run())
    try:
        while not (await asyncio.wait([running], timeout=_LOOK_S))[0]:
            if await request.is_disconnected():
                raise RequestError("the client closed the connection", status=499)
        await running
    except ApportionError as error:
        raise RequestError(str(error), status=503) from error
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await running


async def score_inputs(engine: Engine, body: ClassifyRequest) -> tuple[list[float], int]:
    """Scores of the inputs, in their order, and how many tokens they have.

    Raises:
        RequestError: the model is no verifier, or an input is empty or too long.
    """
    try:
        if body.messages:
            messages = [message.plain() for message in body.messages]
            encoded = await asyncio.to_thread(engine.tokenizer.encode_chats, [messages], body.ending)
        else:
            encoded = await _encoded_inputs(engine, body.inputs())
        scores = await asyncio.wrap_future(engine.score(encoded))
    except ApportionError as error:
        raise RequestError(str(error)) from error
    return scores, sum(map(len, encoded))


async def _encoded_inputs(engine: Engine, inputs: list[str] | list[list[int]]) -> list[list[int]]:
    known = engine.config.vocab_size
    tokens = [one for one in inputs if not isinstance(one, str)]
    outside = [token for one in tokens for token in one if token >= known]
    if outside:
        raise RequestError(f"token {outside[0]} is not in the vocabulary of {known}", parameter="input")
    texts = [one for one in inputs if isinstance(one, str)]
    return tokens or await asyncio.to_thread(engine.tokenizer.encode_texts, texts)
