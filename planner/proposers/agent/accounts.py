"""What the LLM may still spend, and what it was asked before: the client asks here before and after every request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from env.errors import ApportionError
from planner.proposers._base import Exchange


class OverBudgetError(ApportionError):
    """A request may need more than is left; it was not sent."""


class Accounts(Protocol):
    """The proposer's budget and its memory of requests.

    A request is reserved at the most it can need before it is sent, and settled at what it used. One that a crash cut
    off stays reserved until the same request is made again, and is then settled in full: nobody knows what it used.
    """

    def recall(self, request: str) -> Exchange | None:
        """The exchange of an identical earlier request with a usable reply; None where there was none."""
        ...

    def reserve(self, request: str, tokens: int, dollars: float | None) -> str:
        """Set aside what a request may need at most; returns the entry to settle.

        Raises:
            OverBudgetError: more than is left; the message gives the numbers.
        """
        ...

    def settle(self, entry: str, tokens: int, dollars: float | None) -> None:
        """Enter what a request used."""
        ...

    def keep(self, exchange: Exchange) -> Exchange:
        """Store an exchange; returns it with `kept` set where it was stored."""
        ...


class TokenLimit:
    """Accounts of a proposer without an archive: a limit that somebody else keeps, and no memory.

    One instance lasts one round of requests: what they used counts before the next, until the owner of the limit has
    entered it.
    """

    def __init__(self, tokens_left: Callable[[], int] | None) -> None:
        """With the tokens that may still be used, asked before every request; None is no limit."""
        self._tokens_left = tokens_left
        self._used = 0

    def recall(self, request: str) -> Exchange | None:
        """See `Accounts.recall`."""
        return None

    def reserve(self, request: str, tokens: int, dollars: float | None) -> str:
        """See `Accounts.reserve`."""
        if self._tokens_left is not None:
            left = max(0, self._tokens_left() - self._used)
            if tokens > left:
                raise OverBudgetError(f"proposer budget exhausted: {left} tokens left, the call may need {tokens}")
        return request

    def settle(self, entry: str, tokens: int, dollars: float | None) -> None:
        """See `Accounts.settle`."""
        self._used += tokens

    def keep(self, exchange: Exchange) -> Exchange:
        """See `Accounts.keep`."""
        return exchange
