"""Tells processes apart by pid and start time, so that a reused pid is never taken for a server."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMark:
    """One process, for good: pids are reused, a pid with its start time is not."""

    pid: int
    started: int
    """Clock ticks after boot (Linux); 0 where the system does not tell."""

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The mark of a living process; None where there is none (a zombie is none)."""
        fields = _stat(pid)
        if fields is None:
            return cls(pid, 0) if not Path("/proc/self/stat").exists() and process_exists(pid) else None
        return None if fields[0] == "Z" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessMark.of(self.pid) == self

    def kill(self) -> None:
        """Send SIGKILL to this process, if it is still the same."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)


def group_members(group: int) -> list[ProcessMark]:
    """Living processes of a process group (Linux)."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            fields = _stat(int(name))
            if fields is not None and fields[0] != "Z" and int(fields[2]) == group:
                found.append(ProcessMark(int(name), int(fields[19])))
    return found


def kill_group(leader: ProcessMark) -> None:
    """End what is left of a server's process group, where its pid was not given to another since.

    While any member lives, the system gives the group's number to no new process.
    """
    other = ProcessMark.of(leader.pid)
    if other is not None and other != leader:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def process_exists(pid: int) -> bool:
    """Whether a process with that id runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
