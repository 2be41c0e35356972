"""Serves an app on a free loopback port while a context is open: real HTTP for scripted LLMs."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType

import uvicorn
from fastapi import FastAPI

from env.errors import ApportionError

START_SECONDS = 30.0
STOP_SECONDS = 10.0


class LoopbackServer:
    """One app in a thread of its own; the port is taken when this is made, so that the URL is known before.

    Args:
        app: what answers.
    """

    def __init__(self, app: FastAPI) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    @property
    def stopping(self) -> bool:
        """Whether answers that still wait should give up."""
        return self._server.should_exit

    def __enter__(self) -> LoopbackServer:
        """Start.

        Raises:
            ApportionError: the server does not start.
        """
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self.__exit__(None, None, None)
                raise ApportionError(f"a scripted server did not start within {START_SECONDS:g} s at {self.url}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.should_exit = True
        self._thread.join(timeout=STOP_SECONDS)
        self._socket.close()
