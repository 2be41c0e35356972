"""The examples of a study by id, read again from its data."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pydantic import TypeAdapter

from env.spec.study import DataSpec, FileData, PoolData
from env.tasks.data import confined, load_splits
from env.tasks.example import Example

REMEMBERED = 4
"""Data sets kept in memory; a page of examples asks for the same one again and again."""

_DATA: TypeAdapter[DataSpec] = TypeAdapter(DataSpec)


def known_examples(data: DataSpec) -> Mapping[str, Example]:
    """Examples of both splits by id.

    Raises:
        DataError: the data can no longer be read.
    """
    return _loaded(_DATA.dump_json(data), _stamp(data))


@lru_cache(maxsize=REMEMBERED)
def _loaded(data: bytes, stamp: tuple[int, int]) -> Mapping[str, Example]:
    splits = load_splits(_DATA.validate_json(data))
    return {example.id: example for example in (*splits.search, *splits.test)}


def _stamp(data: DataSpec) -> tuple[int, int]:
    """Changes with the file behind the data."""
    match data:
        case FileData():
            path = confined(data.path)
        case PoolData():
            path = confined(data.gold)
        case _:
            return (0, 0)
    try:
        stat = path.stat()
    except OSError:
        return (-1, -1)
    return (stat.st_mtime_ns, stat.st_size)
