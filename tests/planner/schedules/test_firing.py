"""When expressions fire, over the days on which clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from env.errors import ApportionError
from planner.schedules.firing import MOST_COUNTED, Cron, moment_of

BERLIN = ZoneInfo("Europe/Berlin")


def fired(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The following firings as clocks of the zone show them, with the offset."""
    cron, moment = Cron(expression, zone), datetime.fromisoformat(after)
    found = islice(cron.between(moment, moment + timedelta(days=400)), count)
    return [f"{m.astimezone(ZoneInfo(zone)):%d %H:%M:%S %z}" for m in found]


def test_a_named_hour_that_does_not_exist_fires_when_the_clock_jumps_over_it() -> None:
    assert fired("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00+00:00", 3) == [
        "28 02:30:00 +0100",
        "29 03:00:00 +0200",
        "30 02:30:00 +0200",
    ]


def test_two_named_times_in_one_gap_fire_once() -> None:
    assert fired("10,50 2 29 3 *", "Europe/Berlin", "2026-03-28T00:00+00:00", 2) == [
        "29 03:00:00 +0200",
        "29 02:10:00 +0200",
    ]


def test_a_named_hour_that_comes_twice_fires_the_first_time() -> None:
    assert fired("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00+00:00", 2) == [
        "25 02:30:00 +0200",
        "26 02:30:00 +0100",
    ]
    # Asked between the two: the first has fired, the second is none.
    assert fired("30 2 * * *", "Europe/Berlin", "2026-10-25T00:40+00:00", 1) == ["26 02:30:00 +0100"]


def test_open_hours_go_by_real_time_through_a_gap() -> None:
    assert fired("0 * * * *", "Europe/Berlin", "2026-03-29T00:30+00:00", 2) == [
        "29 03:00:00 +0200",
        "29 04:00:00 +0200",
    ]
    assert fired("30 * * * *", "Europe/Berlin", "2026-03-29T00:20+00:00", 2) == [
        "29 01:30:00 +0100",
        "29 03:30:00 +0200",
    ]


def test_open_hours_fire_in_both_hours_that_are_called_alike() -> None:
    assert fired("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:40+00:00", 6) == [
        "25 02:00:00 +0200",
        "25 02:30:00 +0200",
        "25 02:00:00 +0100",
        "25 02:30:00 +0100",
        "25 03:00:00 +0100",
        "25 03:30:00 +0100",
    ]


def test_a_clock_that_changes_by_half_an_hour() -> None:
    assert fired("15,45 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00+00:00", 3) == [
        "04 02:30:00 +1100",
        "04 02:45:00 +1100",
        "05 02:15:00 +1100",
    ]


def test_midnight_that_does_not_exist() -> None:
    assert fired("0 0 * * *", "America/Havana", "2026-03-07T12:00+00:00", 2) == [
        "08 01:00:00 -0400",
        "09 00:00:00 -0400",
    ]


def test_every_minute_of_a_year_fires_once_and_in_order() -> None:
    # Both changes of a year, minute by minute: as many firings as minutes have passed.
    for day in ("2026-03-28", "2026-10-24"):
        start = datetime.fromisoformat(f"{day}T12:00+00:00")
        found = list(Cron("* * * * *", "Europe/Berlin").between(start, start + timedelta(days=1)))
        assert found == [start + timedelta(minutes=n) for n in range(1, 24 * 60 + 1)]


@pytest.mark.parametrize("expression", ["*/2 * * * * *", "30 2 * * *", "0 0 29 2 *", "0 9 * * mon-fri"])
def test_the_latest_firing_is_the_last_of_all(expression: str) -> None:
    cron = Cron(expression, "Europe/Berlin")
    for hours in (0, 1, 30, 2000):
        until = datetime(2028, 3, 2, 1, 0, 1, tzinfo=UTC)
        after = until - timedelta(hours=hours)
        expected = None if hours > 30 and expression.startswith("*/2") else list(cron.between(after, until))
        if expected is not None:
            assert cron.latest(after, until) == (expected[-1] if expected else None)


def test_a_long_silence_of_a_frequent_schedule_is_counted_up_to_a_limit() -> None:
    cron, until = Cron("* * * * * *", "UTC"), datetime(2026, 6, 1, tzinfo=UTC)
    after = until - timedelta(days=300)
    assert cron.latest(after, until) == until
    assert cron.count(after, until) == MOST_COUNTED


def test_times_of_a_zone_become_moments() -> None:
    assert moment_of(datetime(2026, 3, 29, 2, 30), BERLIN) == datetime(2026, 3, 29, 1, tzinfo=UTC)  # noqa: DTZ001
    assert moment_of(datetime(2026, 10, 25, 2, 30), BERLIN) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("* * * *", "UTC", "no cron expression"),
        ("@daily", "UTC", "no cron expression"),
        ("61 * * * *", "UTC", "no cron expression"),
        ("0 0 30 2 *", "UTC", "no cron expression"),
        ("* * * * *", "Mars/Olympus", "no time zone"),
        ("* * * * *", "../etc", "no time zone"),
    ],
)
def test_what_never_fires_is_explained(cron: str, zone: str, words: str) -> None:
    with pytest.raises(ApportionError, match=words):
        Cron(cron, zone).check(datetime.now(UTC))
