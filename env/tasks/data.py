"""Loads a study's examples and splits them into the search split and the sealed test split."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from env.errors import ApportionError
from env.spec.study import DataSpec, FileData, InlineData, LedgerData, PoolData
from env.tasks.example import Example, JsonValue

ROOT_VARIABLE = "APPORTION_DATA_ROOT"
MAX_BYTES = 512 * 1024 * 1024


class DataError(ApportionError):
    """A data set is missing, outside the data root, empty or malformed; the message names the place."""


@dataclass(frozen=True)
class Splits:
    """Examples of a study: disjoint by id."""

    search: tuple[Example, ...]
    test: tuple[Example, ...]


def data_root() -> Path:
    """Folder that specs may read from: ``APPORTION_DATA_ROOT``, else the working directory."""
    return Path(os.environ.get(ROOT_VARIABLE, ".")).resolve()


def confined(path: str) -> Path:
    """A path of a spec, resolved below the data root (symbolic links included).

    Raises:
        DataError: it leads outside.
    """
    root = data_root()
    full = (root / path).resolve()
    if not full.is_relative_to(root):
        raise DataError(f"{path!r} lies outside the data root; set APPORTION_DATA_ROOT to a folder that holds it")
    return full


def load_splits(spec: DataSpec) -> Splits:
    """The examples a study searches on and the ones its plan is tested on.

    Raises:
        DataError: nothing to read, a malformed row, or too few rows for both splits.
    """
    match spec:
        case LedgerData():
            # Imported here: the generator is only needed by studies on the embedded task.
            from env.embedded import ledger_examples

            return Splits(
                tuple(ledger_examples("search", spec.search, spec.seed, spec.difficulty)),
                tuple(ledger_examples("test", spec.test, spec.seed, spec.difficulty)),
            )
        case FileData():
            return _split(list(_read_file(spec.path)), spec.search, spec.test, spec.seed)
        case InlineData():
            rows = [example_of(row, f"row {i + 1}", str(i + 1)) for i, row in enumerate(spec.rows)]
            return _split(rows, spec.search, spec.test, spec.seed)
        case PoolData():
            return _pool_splits(spec)
        case _:  # pragma: no cover
            assert_never(spec)


def _pool_splits(spec: PoolData) -> Splits:
    # Imported here: pyarrow is only needed by studies on recorded pools.
    from env.tasks.gold import read_gold

    path = confined(spec.gold)
    if not path.is_file():
        raise DataError(f"{spec.gold}: no such file below the data root {data_root()}")
    rows = read_gold(path)
    examples = [example_of(row.fields, f"{spec.gold} row {n}", str(n)) for n, row in enumerate(rows, 1)]
    if len({example.id for example in examples}) != len(examples):
        raise DataError(f"{spec.gold}: two rows have the same example")
    if all(row.split is None for row in rows):
        return _split(examples, spec.search, spec.test, spec.seed)
    parts: list[tuple[Example, ...]] = []
    for part, most in (("search", spec.search), ("test", spec.test)):
        chosen = [example for example, row in zip(examples, rows, strict=True) if row.split == part]
        if not chosen:
            raise DataError(f"{spec.gold}: the column split has no row {part!r}")
        chosen.sort(key=lambda example: example.id)
        random.Random(spec.seed).shuffle(chosen)
        parts.append(tuple(chosen[:most]))
    return Splits(*parts)


def _read_file(name: str) -> Iterable[Example]:
    path = confined(name)
    if path.suffix != ".jsonl":
        raise DataError(f"{name}: expected a .jsonl file")
    if not path.is_file():
        raise DataError(f"{name}: no such file below the data root {data_root()}")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{name}: larger than {MAX_BYTES >> 20} MiB")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{name} line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{name} line {number}: expected an object")
            yield example_of(row, f"{name} line {number}", str(number))


def example_of(row: Mapping[str, object], place: str, default_id: str) -> Example:
    """The example that a row of a data set states.

    Args:
        row: `answer` or `answers`, perhaps `id` and `stage_gold`, and the fields that prompts name.
        place: of the row, for messages.
        default_id: where it has no `id`.

    Raises:
        DataError: it states none; the message begins with the place.
    """
    fields = dict(row)
    identity = str(fields.pop("id", default_id))
    raw = fields.pop("answers", None)
    if raw is None:
        raw = fields.pop("answer", None)
    answers = raw if isinstance(raw, list | tuple) else [raw]
    if raw is None or not answers or any(not isinstance(a, str | int | float) for a in answers):
        raise DataError(f"{place}: needs `answer` (text) or `answers` (a list of texts)")
    gold = fields.pop("stage_gold", {})
    if not isinstance(gold, dict):
        raise DataError(f"{place}: `stage_gold` must be an object of stage names")
    return Example(identity, _json_fields(fields), tuple(str(a) for a in answers), gold)


def _json_fields(fields: Mapping[str, object]) -> dict[str, JsonValue]:
    value: dict[str, JsonValue] = json.loads(json.dumps(fields))
    return value


def _split(rows: list[Example], search: int, test: int, seed: int) -> Splits:
    if not rows:
        raise DataError("the data set is empty")
    if len(rows) < 2:
        raise DataError("the data set has one row; a search split and a sealed test split need at least two")
    if len({row.id for row in rows}) != len(rows):
        raise DataError("two rows have the same id")
    order = sorted(rows, key=lambda row: row.id)
    random.Random(seed).shuffle(order)
    if search + test > len(order):
        # Keep the asked proportion; a data set smaller than asked for is common and no fault.
        search = min(max(1, round(len(order) * search / (search + test))), len(order) - 1)
        test = len(order) - search
    return Splits(tuple(order[:search]), tuple(order[search : search + test]))
