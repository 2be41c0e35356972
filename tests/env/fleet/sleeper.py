"""The engine's server with what vLLM adds for sleep mode, and a switch that hangs its engine. Understands `vllm serve`.

Environment: REFUSES_SLEEP makes it stop at once where sleep mode is asked for, as vLLM's CPU build does. A POST to
/hang makes every later completion wait for ever while /health stays fine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from env.engine.engine import Engine
from env.engine.server import create_engine_app


def with_sleep(app: FastAPI) -> FastAPI:
    asleep = hangs = False

    @app.post("/sleep")
    async def sleep(level: int) -> dict[str, int]:
        nonlocal asleep
        asleep = True
        return {"level": level}

    @app.post("/wake_up")
    async def wake_up() -> dict[str, str]:
        nonlocal asleep
        asleep = False
        return {}

    @app.post("/hang")
    async def hang() -> dict[str, str]:
        nonlocal hangs
        hangs = True
        return {}

    @app.middleware("http")
    async def gate(request: Request, call_next):  # type: ignore[no-untyped-def]
        if request.url.path.startswith("/v1/c"):
            if asleep:
                return JSONResponse({"error": {"message": "asleep"}}, 503)
            while hangs:
                await asyncio.sleep(1)
        return await call_next(request)

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("serve")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--served-model-name")
    parser.add_argument("--port", type=int)
    parser.add_argument("--enable-sleep-mode", action="store_true")
    options, _ = parser.parse_known_args()
    if options.enable_sleep_mode and "REFUSES_SLEEP" in os.environ:
        sys.exit("sleep mode is not supported here")
    assert not options.enable_sleep_mode or os.environ["VLLM_SERVER_DEV_MODE"] == "1"
    app = create_engine_app({options.served_model_name: Engine(options.checkpoint, "cpu")})
    uvicorn.run(with_sleep(app), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
