"""Reads rows out of JSONL, CSV and Parquet files, one at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, get_args

from env.spec import Fault
from planner.datasets.errors import FaultyRows

DatasetFormat = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[DatasetFormat, ...] = get_args(DatasetFormat)
MAX_LINE = 4 * 1024 * 1024
"""Characters of one row."""

_BATCH = 256
Row = dict[str, Any]


def rows_of(path: Path, format: DatasetFormat) -> Iterator[tuple[str, Row | Fault]]:
    """(place, row or what is wrong with it) of every row; blank lines are none.

    A CSV file starts with the names of its columns, all values are texts, and an empty cell is an absent value.

    Raises:
        FaultyRows: the file as a whole is of another format.
    """
    match format:
        case "jsonl":
            return _jsonl(path)
        case "csv":
            return _csv(path)
        case "parquet":
            return _parquet(path)


def _jsonl(path: Path) -> Iterator[tuple[str, Row | Fault]]:
    with path.open("rb") as lines:
        number = 0
        while line := lines.readline(MAX_LINE + 1):
            number += 1
            place = f"line {number}"
            if len(line) > MAX_LINE:
                raise FaultyRows([Fault(place, f"longer than {MAX_LINE:,} bytes")])
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise FaultyRows([Fault(place, f"not UTF-8: {error.reason}")]) from error
            except (ValueError, RecursionError) as error:
                yield place, Fault(place, f"not JSON: {error}")
                continue
            yield place, row if isinstance(row, dict) else Fault(place, "expected an object")


def _csv(path: Path) -> Iterator[tuple[str, Row | Fault]]:
    csv.field_size_limit(MAX_LINE)
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            names = next(reader, None)
            if not names or any(not name.strip() for name in names):
                raise FaultyRows([Fault("line 1", "expected the names of the columns, none of them empty")])
            names = [name.strip() for name in names]
            if len(set(names)) != len(names):
                raise FaultyRows([Fault("line 1", "two columns have one name")])
            for values in reader:
                place = f"line {reader.line_num}"
                if not values:
                    continue
                if len(values) != len(names):
                    yield place, Fault(place, f"{len(values)} cells for {len(names)} columns")
                    continue
                yield place, {name: value for name, value in zip(names, values, strict=True) if value != ""}
        except csv.Error as error:
            raise FaultyRows([Fault(f"line {reader.line_num}", f"not CSV: {error}")]) from error
        except UnicodeDecodeError as error:
            raise FaultyRows([Fault(f"after line {reader.line_num}", f"not UTF-8: {error.reason}")]) from error


def _parquet(path: Path) -> Iterator[tuple[str, Row | Fault]]:
    # Imported here: only those who upload Parquet need it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    place = f"row {number}"
                    try:
                        yield place, {name: _plain(value) for name, value in row.items() if value is not None}
                    except TypeError as error:
                        yield place, Fault(place, str(error))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise FaultyRows([Fault("", f"not a sound Parquet file: {str(error).splitlines()[0]}")]) from error


def _plain(value: Any) -> Any:
    """A Parquet value as JSON has it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case _:
            raise TypeError(f"a value of type {type(value).__name__} is no JSON")
