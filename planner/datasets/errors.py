"""Why a data set is not taken in or not removed."""

from __future__ import annotations

from collections.abc import Sequence

from env.errors import ApportionError
from env.spec import Fault


class FaultyRows(ApportionError):
    """The rows are no data set; nothing was kept."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        """One fault a row, its path the row's place."""
        self.faults = tuple(faults)
        super().__init__("; ".join(f"{fault.path}: {fault.message}" for fault in faults))


class TooLarge(ApportionError):
    """More bytes or rows than the service takes."""


class DiskFull(ApportionError):
    """The disk of the data root is full; nothing was kept."""


class StillNeeded(ApportionError):
    """A schedule or an unfinished study reads the data set."""
