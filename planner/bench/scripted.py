"""LLMs played by scripts, behind real HTTP: what the agent makes of a good one, a useless one and a hostile one."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from env.allocation import Allocation
from env.errors import ApportionError
from planner.bench.loopback import LoopbackServer
from planner.bench.problem import Problem

Rows = list[dict[str, Any]]
Script = Callable[[str, int], Rows]
"""The prompt, and how many allocations it wants -> proposals in the agent's form."""


def follower(problem: Problem, seed: int) -> Script:
    """Does what its prompt shows: proposes what the forecast lists, in its order."""

    def propose(prompt: str, count: int) -> Rows:
        return [
            _row(row["allocation"], row["expected_score"]) for row in json.loads(f"[{data_block(prompt, 'forecast')}]")
        ][:count]

    return propose


def useless(problem: Problem, seed: int) -> Script:
    """Draws allocations by lot and is sure of each."""
    dice = random.Random(f"useless/{seed}")
    return lambda prompt, count: [_row(a.to_json(), 0.99) for a in problem.space.sample(dice, count)]


def hostile(problem: Problem, seed: int) -> Script:
    """Knows the truth, proposes the worst that its prompt does not show yet, and promises the best."""
    order = sorted(problem.space.allocations(), key=problem.truth)

    def propose(prompt: str, count: int) -> Rows:
        shown = json.loads(data_block(prompt, "history") or "{}").get("trials", ())
        tried = {" ".join(f"{s}={setting}" for s, setting in row["allocation"].items()) for row in shown}
        fresh: list[Allocation] = [a for a in order if str(a) not in tried]
        return [_row(a.to_json(), 0.99) for a in fresh[:count]]

    return propose


SCRIPTS: dict[str, Callable[[Problem, int], Script]] = {"follower": follower, "useless": useless, "hostile": hostile}
"""By name; in the benchmark ``agent@follower`` and so on."""


@contextmanager
def scripted_llm(name: str, problem: Problem, seed: int) -> Iterator[str]:
    """An OpenAI-compatible server on a free loopback port that answers by a script; yields its base URL.

    Raises:
        ApportionError: no script of that name, or the server does not start.
    """
    if name not in SCRIPTS:
        raise ApportionError(f"no scripted LLM {name!r}; there are {', '.join(SCRIPTS)}")
    with LoopbackServer(_app(SCRIPTS[name](problem, seed))) as server:
        yield f"{server.url}/v1"


def _app(script: Script) -> FastAPI:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> JSONResponse:
        body: dict[str, Any] = await request.json()
        prompt = "\n\n".join(str(message["content"] or "") for message in body["messages"])
        name = body.get("response_format", {}).get("json_schema", {}).get("name", "proposals")
        reply = GUIDELINES if name == "guidelines" else {"proposals": script(prompt, _wanted(prompt))}
        text = json.dumps(reply)
        # About four characters a token, as bounds on prompts count them.
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4}
        return JSONResponse(
            {
                "id": "scripted",
                "object": "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": {**usage, "total_tokens": sum(usage.values())},
            }
        )

    return app


_EMPTY = dict.fromkeys(("preferred_model", "direction", "plateau", "shift_budget_from", "shift_budget_to"))
GUIDELINES = {
    "guidelines": [
        {"insight": 0, "stage": None, "text": "Go on from what the trials show.", "structured": dict(_EMPTY)}
    ]
}


def _wanted(prompt: str) -> int:
    found: Sequence[str] = re.findall(r"^Allocations wanted: (\d+)$", prompt, re.MULTILINE)
    return int(found[-1]) if found else 1


def data_block(prompt: str, name: str) -> str:
    """The text between the marks of one of the prompt's data blocks; empty where there is none."""
    found = re.search(rf"^<<<DATA {name}\n(.*?)\nDATA>>>$", prompt, re.DOTALL | re.MULTILINE)
    return found.group(1) if found else ""


def _row(allocation: Any, expected: float) -> dict[str, Any]:
    return {"allocation": allocation, "reason": "by the script", "expected_score": expected}
