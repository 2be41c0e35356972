"""Serves REST, pages and a worker in one process: on loopback, or elsewhere for holders of a token."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import webbrowser
from types import FrameType, TracebackType
from typing import Any, Self

import uvicorn

from api.access.confinement import confine
from api.access.policy import AccessPolicy, require_token
from api.app import create_app
from api.housekeeping import kept_house
from api.observing.process import observed_process
from api.settings import Settings
from env.errors import ApportionError
from planner.durable import Runtime

SHUTDOWN_SECONDS = 5
"""How long open requests may take once the process was asked to stop."""

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: a client that asks every few seconds must not meet its end with a request."""

SWITCH_SECONDS = 0.001
"""After how long a thread that computes lets another one run."""


class ServeError(ApportionError):
    """The service cannot be started as asked."""


def serve(settings: Settings, open_browser: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, then close in order; a study in flight goes on at the next start.

    Args:
        settings: where the archive lives and what to bind to.
        open_browser: show the start page once the service answers.

    Raises:
        NoToken: others than this machine's user could ask, and there is no access token.
        ConfinementError: what studies may reach is not set properly.
        ServeError: the port is taken.
        ArchiveError: the archive or the jobs database cannot be opened.
    """
    policy = AccessPolicy.of(settings)
    require_token(settings, policy)
    confine(settings)
    # Each thread that has work may keep the web loop waiting for as long, the worker's among them; 5 ms by default.
    sys.setswitchinterval(SWITCH_SECONDS)
    listener = bound_socket(settings.host, settings.port)
    url = _url(settings.host, listener.getsockname()[1])
    # The runtime before uvicorn: DBOS refuses to be launched inside a running loop.
    with (
        listener,
        _Stop() as stop,
        Runtime(settings.archive_url, settings.queue_url, settings=settings.jobs) as runtime,
        observed_process(settings, runtime.archive) as metrics,
        kept_house(settings, runtime.archive),
    ):
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(runtime, metrics, policy, settings),
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                forwarded_allow_ips=list(settings.trusted_proxies),
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
            )
        )
        stop.attach(server)
        print(f"Apportion serves on {url} (archive {runtime.archive.place}); stop with Ctrl-C", flush=True)
        if open_browser:
            threading.Timer(0.5, webbrowser.open, (url,)).start()
        server.run(sockets=[listener])


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ServeError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise ServeError(
            f"cannot bind to {host} port {port}: {error.strerror or error}; choose another host or port"
        ) from error
    # What is accepted here inherits it. asyncio sets it only on sockets whose protocol is named, which these are not:
    # the end of each answer on a kept connection waited 40 ms for the client's acknowledgement of its beginning.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Stop:
    """Turns SIGTERM and SIGINT into an orderly end, also before uvicorn listens to them and after it is through.

    uvicorn raises the signals it caught once more at its end, which would kill the process before it has closed.
    """

    def __init__(self) -> None:
        self._asked = False
        self._server: uvicorn.Server | None = None
        self._held: dict[int, Any] = {}

    def attach(self, server: uvicorn.Server) -> None:
        """The server to stop; one that is attached after the signal came ends as soon as it has started."""
        self._server = server
        server.should_exit = self._asked

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._held = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._held.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._server is not None:
            self._server.should_exit = True
