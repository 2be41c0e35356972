"""What the workflows of one worker process share: its archive, whether it is stopping, and what it runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from planner.archive import Archive


@dataclass
class Worker:
    """One process that runs studies. Fields are read and set from several threads, each in one step."""

    archive: Archive
    executor_id: str
    stopping: threading.Event = field(default_factory=threading.Event)
    """Set: take no study, and stop those that run at their next stored chunk."""

    stop_by: float = float("inf")
    """Moment, on the monotonic clock, from which running studies are cut off wherever they are."""

    active: set[str] = field(default_factory=set)
    """Workflow ids of the studies that run here."""

    trouble: dict[str, str] = field(default_factory=dict)
    """By study id: what keeps it from going on for the moment, such as a full disk."""

    def stop(self, within_s: float) -> None:
        """Begin to stop; the first call decides when studies are cut off."""
        if not self.stopping.is_set():
            self.stop_by = time.monotonic() + within_s
            self.stopping.set()
