"""Whose turn it is: a queue that serves tenants in turn, each in its own order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class FairQueue(Generic[Item]):
    """First in, first out for each tenant; round robin between tenants. Items are distinct. All steps are O(1)."""

    def __init__(self) -> None:
        """Start empty."""
        self._waiting: OrderedDict[str, dict[Item, None]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, tenant: str, item: Item) -> None:
        """Add an item at the end of its tenant's line; a new tenant joins at the end of the round."""
        self._waiting.setdefault(tenant, {})[item] = None
        self._length += 1

    def pop(self) -> Item:
        """The next item; its tenant then waits until the others had their turn.

        Raises:
            IndexError: nothing waits.
        """
        if not self._waiting:
            raise IndexError("nothing waits")
        tenant, line = next(iter(self._waiting.items()))
        item = next(iter(line))
        self._remove(tenant, line, item)
        if line:
            self._waiting.move_to_end(tenant)
        return item

    def discard(self, tenant: str, item: Item) -> bool:
        """Take an item out of turn; False if it no longer waits."""
        line = self._waiting.get(tenant, {})
        if item not in line:
            return False
        self._remove(tenant, line, item)
        return True

    def drain(self) -> list[Item]:
        """Take everything out, in the order of turns."""
        items = []
        while self._waiting:
            items.append(self.pop())
        return items

    def _remove(self, tenant: str, line: dict[Item, None], item: Item) -> None:
        del line[item]
        self._length -= 1
        if not line:
            del self._waiting[tenant]
