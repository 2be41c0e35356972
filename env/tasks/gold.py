"""Reads the gold table of a pool of recorded draws: what each example's right answer is."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from env.tasks.data import MAX_BYTES, DataError


@dataclass(frozen=True)
class GoldRow:
    """One row: the fields of an example as `env.tasks.data` takes them, and its split where the table says one."""

    fields: dict[str, object]
    split: str | None


def read_gold(path: Path) -> list[GoldRow]:
    """Rows of a Parquet or CSV file with the columns ``example`` and ``answer``.

    ``answer`` is a text, a number or (Parquet) a list of accepted ones. Every other column becomes a field, and
    ``example`` too, so that prompts can name the id.

    Raises:
        DataError: unreadable, a column missing, no rows, an empty id or answer, or an unknown split.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name}: larger than {MAX_BYTES >> 20} MiB")
    if path.suffix == ".parquet":
        columns, rows = _parquet(path)
    elif path.suffix == ".csv":
        columns, rows = _csv(path)
    else:
        raise DataError(f"{path.name}: expected a .parquet or .csv file")
    missing = [column for column in ("example", "answer") if column not in columns]
    if missing:
        raise DataError(
            f"{path.name}: no column {', '.join(missing)}; a gold table has example, answer and text fields"
        )
    if not rows:
        raise DataError(f"{path.name}: holds no examples")
    return [_row(path.name, number, row) for number, row in enumerate(rows, 1)]


def _row(name: str, number: int, row: dict[str, object]) -> GoldRow:
    for column in ("example", "answer"):
        if row[column] in (None, "", []):
            raise DataError(f"{name} row {number}: {column} is empty")
    split = row.pop("split", None) or None
    if split not in (None, "search", "test"):
        raise DataError(f"{name} row {number}: split is {split!r}; it must be search or test")
    try:
        json.dumps(row)
    except TypeError as error:
        raise DataError(f"{name} row {number}: {error}; fields are texts, numbers and lists of them") from error
    identity = str(row["example"])
    return GoldRow({**row, "id": identity, "example": identity}, None if split is None else str(split))


def _parquet(path: Path) -> tuple[list[str], list[dict[str, object]]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name}: not a readable Parquet file ({error})") from error
    return table.column_names, table.to_pylist()


def _csv(path: Path) -> tuple[list[str], list[dict[str, object]]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            rows: list[dict[str, object]] = []
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{path.name} line {reader.line_num}: not as many values as the header has names")
                rows.append(dict(row))
            return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path.name}: not a readable CSV file ({error})") from error
