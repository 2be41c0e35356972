"""What other processes can know of a fleet: who owns it, and its servers with pids that cannot be mistaken."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from env.fleet.errors import FleetError
from env.fleet.processes import ProcessMark, group_members, kill_group
from env.spec.strict import Strict

_held_here: set[Path] = set()
"""Folders this process owns: a process does not lock itself out, and closing the file a second time would let go."""

_holding = threading.Lock()

OwnerKind = Literal["up", "study", "tune"]


class Process(Strict):
    """A process by pid and start time."""

    pid: int
    started: int

    @classmethod
    def of(cls, mark: ProcessMark) -> Process:
        """As stored."""
        return cls(pid=mark.pid, started=mark.started)

    @property
    def mark(self) -> ProcessMark:
        """As checked."""
        return ProcessMark(self.pid, self.started)


class ServerState(Strict):
    """One server, as its owner last wrote it."""

    model: str
    phase: str
    url: str
    devices: tuple[str, ...]
    process: Process | None
    restarts: int = 0
    restart_seconds: float = 0.0
    load_seconds: float = 0.0
    log: str
    reason: str = ""

    @property
    def alive(self) -> bool:
        """Whether its process still is the one written down."""
        return self.process is not None and self.process.mark.alive


class FleetState(Strict):
    """A fleet, as its owner last wrote it."""

    owner: Process
    kind: OwnerKind
    file: str
    updated: float = Field(description="Seconds since 1970.")
    servers: tuple[ServerState, ...] = ()
    loads: int = 0
    load_seconds: float = 0.0
    wakes: int = 0
    wake_seconds: float = 0.0
    inference_seconds: float = 0.0

    @property
    def alive(self) -> bool:
        """Whether the owner still runs."""
        return self.owner.mark.alive


class StateFile:
    """The state of one fleet folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "state.json"

    def read(self) -> FleetState | None:
        """What was last written; None where there is nothing, or nothing readable."""
        try:
            return FleetState.model_validate_json(self._path.read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return None

    def write(self, state: FleetState) -> None:
        """Replace what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(state.model_dump_json(indent=2))
        os.replace(new, self._path)

    def clear(self) -> None:
        """Forget what is there."""
        self._path.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Own the folder; the system lets go of it when this process ends, however it ends.

        Raises:
            FleetError: another living process owns it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = self.folder.resolve()
        with _holding:
            if folder in _held_here:
                raise FleetError(self._held_text())
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # A record lock, not flock: children that this process forks do not inherit it and keep it alive.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise FleetError(self._held_text()) from None
            _held_here.add(folder)
        try:
            end_leftovers(self.read())
            yield
            self.clear()
        finally:
            _held_here.discard(folder)
            os.close(lock)

    def remembered(self) -> dict[str, Any]:
        """What was learnt about this machine's engine and should not be tried again."""
        try:
            value = json.loads((self.folder / "learnt.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def remember(self, **facts: Any) -> None:
        """Add to what was learnt."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.remembered(), **facts}, indent=2)
        (self.folder / "learnt.json").write_text(text, encoding="utf-8")

    def _held_text(self) -> str:
        state = self.read()
        who = "another process" if state is None else f"process {state.owner.pid} ({state.kind})"
        up = ", ".join(s.model for s in state.servers if s.phase == "ready") if state else ""
        return (
            f"the fleet in {self.folder} is held by {who}, which serves {up or 'nothing yet'}. To share servers "
            "between processes, start them once with `apportion fleet up`; else end that process, or give this fleet "
            "file another `folder`"
        )


def end_leftovers(state: FleetState | None, patience_s: float = 5.0) -> list[str]:
    """End servers whose owner is gone; names of the models that were still running.

    Their keepers do this by themselves within seconds; it is the last resort where a keeper was killed too.
    """
    if state is None or state.alive:
        return []
    running = [s for s in state.servers if s.process is not None and group_members(s.process.pid)]
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and any(s.process and group_members(s.process.pid) for s in running):
        time.sleep(0.1)
    for server in running:
        if server.process is not None:
            kill_group(server.process.mark)
    return [server.model for server in running]
