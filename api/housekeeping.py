"""Applies the operator's retention once an hour, in one process of however many there are."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from api.settings import Settings
from env.errors import ApportionError
from planner.archive import Archive
from planner.archive.retention import Retention, RetentionRuns

log = logging.getLogger(__name__)

EVERY = timedelta(hours=1)
LOOK_SECONDS = 300.0
"""How often a process asks whether its turn has come."""


def retention_of(settings: Settings) -> Retention:
    """The retention that the settings ask for."""
    return Retention(settings.keep_studies_days, settings.keep_events_days)


@contextmanager
def kept_house(settings: Settings, archive: Archive) -> Iterator[None]:
    """Remove what need not be kept in the background until the block ends; nothing where the settings keep all."""
    retention = retention_of(settings)
    if retention == Retention():
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_keep, args=(archive, retention, stop), name="apportion-housekeeping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _keep(archive: Archive, retention: Retention, stop: threading.Event) -> None:
    runs = RetentionRuns(archive)
    while True:
        try:
            if runs.due(EVERY):
                removed = runs.apply(retention)
                if removed.studies or removed.events:
                    log.info("retention removed %d studies and %d events", len(removed.studies), removed.events)
        except ApportionError as error:
            # The database may be back at the next look.
            log.warning("retention could not be applied: %s", error)
        if stop.wait(LOOK_SECONDS):
            return
