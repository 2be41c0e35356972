"""One kept process, seen from its owner: started through the keeper, stopped, or found dead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from env.fleet import keeper
from env.fleet.errors import ServerError
from env.fleet.processes import ProcessMark, kill_group

TAIL_LINES = 20
TAIL_BYTES = 4000
_KEEPER_ANSWER_S = 30.0


class KeptProcess:
    """A running server process and the keeper that ends it with its owner."""

    def __init__(self, program: subprocess.Popen[bytes], ended: asyncio.Future[int]) -> None:
        self._keeper = program
        self._buffer = b""
        self._started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ended = ended
        """Exit status of the server's first process (negative: the signal), once nothing of it is left."""

        self.mark = ProcessMark(0, 0)
        """The server's first process, which leads its group."""

    @classmethod
    async def start(
        cls, command: Sequence[str], environment: Mapping[str, str], log: Path, log_limit: int
    ) -> KeptProcess:
        """Start a command in a session of its own, its output in the log.

        Raises:
            ServerError: it cannot be started.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        _head(log, command)
        program = subprocess.Popen(  # noqa: ASYNC220 (a few milliseconds; asyncio's own would kill the keeper)
            [sys.executable, "-I", "-S", keeper.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        )
        loop = asyncio.get_running_loop()
        process = cls(program, loop.create_future())
        assert program.stdin is not None
        assert program.stdout is not None
        order = {"command": list(command), "log": str(log), "log_limit": log_limit}
        program.stdin.write(json.dumps(order).encode() + b"\n")
        program.stdin.flush()
        os.set_blocking(program.stdout.fileno(), False)
        loop.add_reader(program.stdout.fileno(), process._read)
        try:
            pid = await asyncio.wait_for(asyncio.shield(process._started), _KEEPER_ANSWER_S)
        except TimeoutError:
            process._abandon()
            raise ServerError(f"the keeper of {command[0]} did not answer within {_KEEPER_ANSWER_S:.0f} s") from None
        except BaseException:
            process._abandon()
            raise
        process.mark = ProcessMark.of(pid) or ProcessMark(pid, 0)
        return process

    async def stop(self, grace: float) -> None:
        """SIGTERM, after ``grace`` seconds SIGKILL, to everything the server started; returns when it is gone."""
        with contextlib.suppress(OSError, ValueError):
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(f"stop {grace}\n".encode())
            self._keeper.stdin.flush()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), grace + 15.0)
        except TimeoutError:
            self._abandon()

    def _read(self) -> None:
        assert self._keeper.stdout is not None
        try:
            data = os.read(self._keeper.stdout.fileno(), 4096)
        except BlockingIOError:
            return
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        if not data:
            self._gone()

    def _take(self, event: dict[str, Any]) -> None:
        if "started" in event and not self._started.done():
            self._started.set_result(int(event["started"]))
        elif "failed" in event and not self._started.done():
            self._started.set_exception(ServerError(f"it cannot be started: {event['failed']}"))
        elif "ended" in event and not self.ended.done():
            self.ended.set_result(int(event["ended"]))

    def _gone(self) -> None:
        """The keeper is gone; where it did not say that the server ended, it was killed itself."""
        self._close_pipes()
        if not self._started.done():
            self._started.set_exception(ServerError("its keeper died while starting"))
        if not self.ended.done():
            if self.mark.pid:
                kill_group(self.mark)
            self.ended.set_result(-9)

    def _abandon(self) -> None:
        """End everything at once; where the server's pid is not known yet, the keeper does it when its pipe closes."""
        if self.mark.pid:
            kill_group(self.mark)
            with contextlib.suppress(OSError):
                self._keeper.kill()
        self._gone()

    def _close_pipes(self) -> None:
        stdin, stdout = self._keeper.stdin, self._keeper.stdout
        if stdout is not None and not stdout.closed:
            asyncio.get_running_loop().remove_reader(stdout.fileno())
            stdout.close()
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(OSError):
                stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(5 if self.mark.pid else 0)


def _head(log: Path, command: Sequence[str]) -> None:
    """Say in the log what starts now; only its owner may read it."""
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as stream:
        stream.write(f"=== {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {' '.join(command)}\n")


def log_tail(log: Path) -> str:
    """The last lines a server wrote since its latest start; what every error about it ends with."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    latest = text.rpartition("\n=== ")[2] if "\n=== " in text else text
    lines = [line for line in latest.splitlines()[1:] if line.strip()] or ["(it wrote nothing)"]
    return "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:])
