"""Keeps one server and ends it with everything it started, whatever becomes of the process that asked for it.

Run as a program of its own (standard library only, a few MB). A lifeline, the pipe on standard input, ties it to its
owner: when the owner closes it or is killed, the server's whole process tree goes. The kernel's parent-death signal
would reach only the server's first process, while engines put their workers into children; so this process is the
reaper of all orphans below it (Linux) and ends those too, even where they left the server's process group.

Standard input: one JSON line with ``command``, ``log`` and ``log_limit``, later lines ``stop SECONDS``. Standard
output: JSON lines ``{"started": pid}``, ``{"failed": reason}`` and ``{"ended": exit status}``. The server's own output
goes to the log file, which starts anew at its limit; one older file is kept.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

ORPHANED_GRACE_S = 2.0
"""From SIGTERM to SIGKILL when the owner is gone."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 0.25


class Log:
    """A file that starts anew at its limit."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes) -> None:
        """Append; a full disk loses output, never the server."""
        with contextlib.suppress(OSError):
            if os.fstat(self._file).st_size + len(data) > self._limit:
                os.replace(self._path, self._path + ".1")
                os.close(self._file)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(self._file, data)


class Keeper:
    """One server from its start to the last of its processes."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._owner = os.getppid()
        self._log = Log(order["log"], order["log_limit"])
        self._lifeline: int | None = 0
        self._commands = b""
        self._deadline: float | None = None
        self._child_news = _wakeup_pipe()
        self._output: int | None
        self.pid, self._output = _spawn(order["command"])

    def run(self) -> int:
        """Until the server has ended; returns its exit status (negative: the signal)."""
        while True:
            watched = [fd for fd in (self._lifeline, self._output, self._child_news) if fd is not None]
            ready, _, _ = select.select(watched, [], [], _LOOK_S)
            if self._child_news in ready:
                os.read(self._child_news, 4096)
            if self._output in ready:
                self._copy_output()
            if self._lifeline in ready:
                self._read_commands()
            if os.getppid() != self._owner:
                self._stop(ORPHANED_GRACE_S)
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._signal(signal.SIGKILL)
            status = self._reap()
            if status is not None:
                self._end_the_rest()
                return status

    def _copy_output(self) -> None:
        assert self._output is not None
        data = os.read(self._output, 65536)
        if data:
            self._log.write(data)
        else:
            os.close(self._output)
            self._output = None

    def _read_commands(self) -> None:
        assert self._lifeline is not None
        data = os.read(self._lifeline, 4096)
        if not data:
            self._lifeline = None
            self._stop(ORPHANED_GRACE_S)
            return
        self._commands += data
        *lines, self._commands = self._commands.split(b"\n")
        for line in lines:
            if line.startswith(b"stop "):
                self._stop(float(line.split()[1]))

    def _stop(self, grace: float) -> None:
        """SIGTERM to the server's first process, which ends its workers in order; SIGKILL to all after the grace."""
        until = time.monotonic() + grace
        if self._deadline is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
                os.kill(self.pid, signal.SIGCONT)  # a stopped process takes no SIGTERM
        self._deadline = until if self._deadline is None else min(self._deadline, until)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _reap(self) -> int | None:
        """Collect ended children; the server's exit status once it is among them."""
        status = None
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if pid == 0:
                return status
            if pid == self.pid:
                status = os.waitstatus_to_exitcode(code)

    def _end_the_rest(self) -> None:
        """Nothing the server started outlives it: what is left holds its memory."""
        for _ in range(200):
            self._signal(signal.SIGKILL)
            self._reap()
            if not _descendants(os.getpid()):
                break
            time.sleep(0.02)
        while self._output is not None and select.select([self._output], [], [], 0)[0]:
            self._copy_output()


def _wakeup_pipe() -> int:
    """A pipe that has something to read whenever a child has ended."""
    news, its_end = os.pipe()
    os.set_blocking(its_end, False)
    signal.set_wakeup_fd(its_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return news


def _spawn(command: list[str]) -> tuple[int, int]:
    """Start a command in a session of its own; its pid and the pipe with its output.

    Raises:
        OSError: it cannot be started.
    """
    libc = _libc()
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    output, its_output = os.pipe()
    refusal, its_refusal = os.pipe()
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, its_output, its_refusal, keeper, libc)
    os.close(its_output)
    os.close(its_refusal)
    reason = os.read(refusal, 4096)
    os.close(refusal)
    if reason:
        os.waitpid(pid, 0)
        number = int(reason)
        raise OSError(number, os.strerror(number))
    return pid, output


def _become(command: list[str], output: int, refusal: int, keeper: int, libc: ctypes.CDLL | None) -> NoReturn:
    try:
        os.setsid()
        if libc is not None:
            # A second net: should this keeper be killed itself, the server's first process goes with it.
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != keeper:
                os._exit(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(refusal, str(error.errno or errno.EIO).encode())
    os._exit(127)


def _libc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None


def _descendants(root: int) -> list[int]:
    """Every process below one, by /proc; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stream:
                    state, parent = stream.read().rpartition(b")")[2].split()[:2]
                    if state != b"Z":
                        children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _say(**event: object) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def main() -> None:
    """Start what the first line of standard input says and keep it."""
    # A terminal's Ctrl-C is for the owner, who then stops the servers in order.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            return
        line += piece
    try:
        keeper = Keeper(json.loads(line))
    except OSError as error:
        _say(failed=f"{error.strerror or error}", errno=error.errno)
        return
    _say(started=keeper.pid)
    _say(ended=keeper.run())


if __name__ == "__main__":
    main()
