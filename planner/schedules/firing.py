"""When a cron expression fires in a time zone: every hour of a day whose clock changes counted once, and none left out.

An expression that names its hours fires once a day, whatever the clock does: a time that does not exist in spring fires
when the clock has jumped over it, one that comes twice in autumn fires the first time. An expression whose hours are
open (``*``) goes by real time: it skips the hour that does not exist and fires in both that are called alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from env.errors import ApportionError

YEARS = 5
"""An expression that does not fire within these years is refused."""

MOST_COUNTED = 1000
"""Firings that were missed are counted up to here."""

_LOOK_BACK = (timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=31), timedelta(days=366))


@dataclass(frozen=True)
class Cron:
    """A cron expression of five fields, or six with seconds first, in a time zone."""

    expression: str
    timezone: str

    def check(self, now: datetime) -> None:
        """Raise ApportionError, its message beginning with the field, where expression or zone are not valid.

        An expression that never fires (30 February) is refused too.
        """
        zone_of(self.timezone)
        try:
            if self._fields not in (5, 6):
                raise ValueError(f"{self._fields} fields")
            if self.next(now) - now > timedelta(days=366 * YEARS):
                raise ValueError("it does not fire within five years")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ApportionError(
                f"cron: {self.expression!r} is no cron expression of five fields, or six with seconds first ({error})"
            ) from None

    def next(self, after: datetime) -> datetime:
        """The first firing later than a moment, in UTC."""
        return self._next_real(after) if self._open_hours else self._next_named(after)

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Firings later than `after` and not later than `until`, oldest first."""
        moment = self.next(after)
        while moment <= until:
            yield moment
            moment = self.next(moment)

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """The last firing later than `after` and not later than `until`; None where there is none.

        Found from the end, so that a long silence of a frequent schedule takes no longer than a short one.
        """
        for back in _LOOK_BACK:
            start = max(after, until - back)
            found = self._last(start, until)
            if found is not None or start == after:
                return found
        return self._last(after, until)

    def count(self, after: datetime, until: datetime) -> int:
        """Firings later than `after` and not later than `until`, counted up to `MOST_COUNTED`."""
        return sum(1 for _ in islice(self.between(after, until), MOST_COUNTED))

    def _last(self, after: datetime, until: datetime) -> datetime | None:
        return next(iter(deque(self.between(after, until), maxlen=1)), None)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return zone_of(self.timezone)

    @cached_property
    def _fields(self) -> int:
        return len(self.expression.split())

    @cached_property
    def _open_hours(self) -> bool:
        fields = self.expression.split()
        return "*" in fields[2 if len(fields) == 6 else 1]

    def _following(self, wall: datetime) -> datetime:
        """The first time of the wall clock after one, as if its clock never changed."""
        found = croniter(self.expression, wall, second_at_beginning=self._fields == 6).get_next(datetime)
        assert isinstance(found, datetime)
        return found

    def _next_named(self, after: datetime) -> datetime:
        wall = _wall(after, self._zone)
        while True:
            wall = self._following(wall)
            moment = moment_of(wall, self._zone)
            if moment > after:
                return moment

    def _next_real(self, after: datetime) -> datetime:
        moment, offset = after, _offset(after, self._zone)
        wall = (after.astimezone(UTC) + offset).replace(tzinfo=None)
        while True:
            found = (self._following(wall) - offset).replace(tzinfo=UTC)
            if _offset(found, self._zone) == offset:
                return found
            # The clock changes before that: go on from the change, by the clock as it is then.
            moment = _change(moment, found, self._zone)
            offset = _offset(moment, self._zone)
            # The moment of the change itself may be a firing.
            wall = (moment + offset).replace(tzinfo=None) - timedelta(seconds=1)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its IANA name.

    Raises:
        ApportionError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ApportionError(f"timezone: no time zone {name!r}; use an IANA name such as Europe/Berlin") from None


def moment_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment, in UTC, at which clocks show a time without a zone.

    The first of two where the time comes twice; where it does not exist, the moment the clock jumps over it.
    """
    first = wall.replace(tzinfo=zone, fold=0)
    moment = first.astimezone(UTC)
    if _wall(moment, zone) == wall:
        return moment
    # In a gap, the offset before it places the time after the change, and the one after it before the change.
    return _change(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), moment, zone)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The first second in (before, after] at which the zone's offset is another one than at `before`."""
    low, high = int(before.timestamp()), int(after.timestamp())
    offset = _offset(datetime.fromtimestamp(low, UTC), zone)
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(datetime.fromtimestamp(middle, UTC), zone) == offset:
            low = middle
        else:
            high = middle
    return datetime.fromtimestamp(high, UTC)
