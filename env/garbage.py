"""How often Python looks for cyclic garbage in a process that draws."""

from __future__ import annotations

import gc

COLLECT_EVERY = 10_000
"""Objects made and not yet freed that start a collection; Python's own 700 is less than one reply read."""


def collect_seldom() -> None:
    """Look for cyclic garbage a fourteenth as often as usual; for entry points, not for libraries.

    With the models' libraries imported a full collection walks 200,000 objects and takes over 0.1 s, in which no
    request is sent and no reply read: the server runs dry. At the usual threshold that happened every few hundred
    requests, since whatever lives for one request is taken for long-lived. Next to nothing here is cyclic.
    """
    gc.set_threshold(COLLECT_EVERY, *gc.get_threshold()[1:])
