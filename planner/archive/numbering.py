"""Gives names, keys and texts the numbers that draws refer to them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from planner.archive.sessions import insert_missing
from planner.archive.tables import ArchiveTable, table_of

_VALUES_A_STATEMENT = 1000


def number_of(connection: Connection, row: type[ArchiveTable], values: Mapping[str, str | bytes]) -> int:
    """The number of the row with exactly these values, which is added where it is missing."""
    table = table_of(row)
    query = select(table.c.id).where(*(table.c[name] == value for name, value in values.items()))
    found = connection.execute(query).scalar()
    if found is None:
        insert_missing(connection, row, [values])
        found = connection.execute(query).scalar_one()
    return int(found)


def numbers_of(
    connection: Connection,
    row: type[ArchiveTable],
    name: str,
    wanted: Mapping[bytes, Mapping[str, Any]],
    refill: str | None = None,
) -> dict[bytes, int]:
    """The numbers of rows by one of their columns, those that are missing added first.

    Rows are added and changed in the order of that column, so that two transactions never wait for each other.

    Args:
        connection: inside a writing transaction.
        row: a table with the columns ``id`` and `name`, which is unique.
        name: the column of `wanted`'s keys.
        wanted: the other columns of each row, should it be missing.
        refill: a column that is set again from `wanted` in rows where it is NULL.
    """
    known, empty = _known(connection, row, name, list(wanted), refill)
    missing = sorted(value for value in wanted if value not in known)
    if missing:
        insert_missing(connection, row, [{name: value, **wanted[value]} for value in missing])
        added, none = _known(connection, row, name, missing, refill)
        known.update(added)
        empty += none
    if refill is not None and empty:
        table = table_of(row)
        again = update(table).where(table.c[name] == bindparam("which")).values({refill: bindparam("content")})
        connection.execute(again, [{"which": v, "content": wanted[v][refill]} for v in sorted(empty)])
    return known


def _known(
    connection: Connection, row: type[ArchiveTable], name: str, values: Sequence[bytes], refill: str | None
) -> tuple[dict[bytes, int], list[bytes]]:
    """Numbers of the rows there are, and the values of those whose column `refill` is NULL."""
    table = table_of(row)
    columns = [table.c[name], table.c.id, *([table.c[refill].is_(None)] if refill else [])]
    found: dict[bytes, int] = {}
    empty: list[bytes] = []
    for start in range(0, len(values), _VALUES_A_STATEMENT):
        these = table.c[name].in_(values[start : start + _VALUES_A_STATEMENT])
        for value, number, *is_empty in connection.execute(select(*columns).where(these)):
            found[bytes(value)] = number
            if any(is_empty):
                empty.append(bytes(value))
    return found, empty
