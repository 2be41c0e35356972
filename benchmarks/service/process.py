"""A real ``apportion serve`` in a process of its own, and the processor time it takes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 30


@dataclass(frozen=True)
class Served:
    """A service that answers."""

    url: str
    pid: int

    def cpu_ms(self) -> float:
        """Processor time of all its threads so far, in milliseconds; those of threads that ended are lost."""
        total = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e6


@contextmanager
def served(home: Path) -> Iterator[Served]:
    """``apportion serve`` on SQLite in a folder, on a free port of loopback, until the block ends.

    Raises:
        RuntimeError: it does not start; the message holds what it wrote.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APPORTION_")}
    data = home / "data"
    data.mkdir(parents=True, exist_ok=True)
    # Uploads go below the data root, which is the working directory by default.
    kept["APPORTION_DATA_ROOT"] = str(data)
    command = [sys.executable, "-m", "api.command", "serve", "--home", str(home), "--port", "0"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=kept, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            if found is None:
                process.wait(STOP_SECONDS)
                errors.seek(0)
                raise RuntimeError(f"the service did not start: {line}{errors.read()}")
            yield Served(found.group(), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
