"""Gives names, keys and texts the numbers that draws refer to them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

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
        others = list(wanted[missing[0]])
        rows = [(value, *wanted[value].values()) for value in missing]
        insert_tuples(connection, row, [name, *others], rows)
        added, none = _known(connection, row, name, missing, refill)
        known.update(added)
        empty += none
    if refill is not None and empty:
        again = f'UPDATE {row.__tablename__} SET "{refill}" = %s WHERE "{name}" = %s'
        values = [(wanted[value][refill], value) for value in sorted(empty)]
        connection.exec_driver_sql(_spelled(connection, again), values)
    return known


def insert_tuples(
    connection: Connection, row: type[ArchiveTable], columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> int:
    """Insert rows whose keys the table does not hold yet; returns how many those were.

    Like `insert_missing`, but straight to the driver: a batch has a thousand rows of numbers and bytes, which need no
    translation, and translating them all the same took longer than storing them.
    """
    if not rows:
        return 0
    names = ", ".join(f'"{column}"' for column in columns)
    places = ", ".join(["%s"] * len(columns))
    statement = f"INSERT INTO {row.__tablename__} ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"
    options = {"preserve_rowcount": True}
    return connection.exec_driver_sql(_spelled(connection, statement), list(rows), execution_options=options).rowcount


def _known(
    connection: Connection, row: type[ArchiveTable], name: str, values: Sequence[bytes], refill: str | None
) -> tuple[dict[bytes, int], list[bytes]]:
    """Numbers of the rows there are, and the values of those whose column `refill` is NULL."""
    found: dict[bytes, int] = {}
    empty: list[bytes] = []
    is_empty = f'"{refill}" IS NULL' if refill else "false"
    for start in range(0, len(values), _VALUES_A_STATEMENT):
        chunk = tuple(values[start : start + _VALUES_A_STATEMENT])
        places = ", ".join(["%s"] * len(chunk))
        query = f'SELECT "{name}", id, {is_empty} FROM {row.__tablename__} WHERE "{name}" IN ({places})'
        for value, number, without in connection.exec_driver_sql(_spelled(connection, query), chunk).all():
            found[value] = number
            if without:
                empty.append(value)
    return found, empty


def _spelled(connection: Connection, statement: str) -> str:
    """A statement of ours (its only per cent signs are places of values) as the driver wants it."""
    return statement if connection.dialect.name == "postgresql" else statement.replace("%s", "?")
