"""The errors of the archive; every message says what to do next and none holds a password."""

from __future__ import annotations

from env.errors import ApportionError


class ArchiveError(ApportionError):
    """The archive cannot be reached, read or written, or refuses what it was asked to store."""


class ArchiveUnavailable(ArchiveError):
    """The database cannot serve just now: not reachable, its disk full, or held by others. Trying again later helps."""


class LeaseLost(ArchiveError):
    """Another run of the study has taken over: what this one wants to write is refused, and it has to end."""


class NotFound(ArchiveError):
    """The archive holds no such study, trial, plan or schedule."""


class Ambiguous(ArchiveError):
    """The start of an id fits several studies; the message lists them."""


class StatusConflict(ArchiveError):
    """A study cannot go from the status it has to the one asked for."""


class Changed(ArchiveError):
    """What was to be edited is no longer what the caller has read; nothing was changed."""


class BudgetExhausted(ApportionError):
    """A reservation would take a ledger above its limit; nothing was reserved."""

    def __init__(self, ledger: str, unit: str, limit: float, usage: float, asked: float) -> None:
        """State the ledger and its numbers, all in `unit`."""
        self.ledger = ledger
        self.unit = unit
        self.limit = limit
        """What the ledger may hold in total."""

        self.usage = usage
        """Settled and openly reserved."""

        self.asked = asked
        super().__init__(
            f"the {ledger} budget is spent: {usage:g} of {limit:g} {unit} are used and {asked:g} more were asked for; "
            f"raise the budget or end the search here"
        )

    @property
    def remaining(self) -> float:
        """What can still be reserved, in `unit`; never negative."""
        return max(0.0, self.limit - self.usage)

    def __reduce__(self) -> tuple[type[BudgetExhausted], tuple[str, str, float, float, float]]:
        """Survive pickling, as workflow engines store errors."""
        return type(self), (self.ledger, self.unit, self.limit, self.usage, self.asked)
