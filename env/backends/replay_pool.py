"""Reads a Parquet file of recorded draws, checks all of it, and finds the draws of an address.

Columns, one row a draw:

| column | type | meaning |
|---|---|---|
| ``stage``, ``model``, ``example`` | text | whose draw it is |
| ``upstream`` | list of texts | canonical JSON of the earlier answers it was made for; empty for the first stage |
| ``draw`` | integer | its index, unique among the draws of the four columns above |
| ``answer`` | text | what the stage's parser reads; null where the draw had no readable answer |
| ``tokens_in``, ``tokens_out`` | integer | tokens of the prompt, and of the whole draw |
| ``score`` (optional) | number | a verifier's score of the draw; not replayed, read by the search benchmark |
| ``cut_tokens`` (optional) | list of integers | where an answer was probed: ascending, below ``tokens_out`` |
| ``cut_answers`` (optional) | list of texts | the answer probed at each of those; null where there was none |
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from env.backends.replay_address import Address
from env.errors import ApportionError
from env.tasks.parsers import canonical

MAX_BYTES = 2 * 1024**3

_REQUIRED = {
    "stage": pa.string(),
    "model": pa.string(),
    "example": pa.string(),
    "upstream": pa.list_(pa.string()),
    "draw": pa.int64(),
    "answer": pa.string(),
    "tokens_in": pa.int64(),
    "tokens_out": pa.int64(),
}
_CUTS = {"cut_tokens": pa.list_(pa.int64()), "cut_answers": pa.list_(pa.string())}
_SCORE = {"score": pa.float64()}
_NULLABLE = {"answer", "upstream", *_CUTS, *_SCORE}

Key = tuple[str, Address]
"""Model and address."""


class PoolError(ApportionError):
    """A pool of recorded draws cannot be read or is not sound; the message names the file and the row."""


@dataclass(frozen=True)
class Recorded:
    """One recorded draw."""

    answer: str | None
    tokens_in: int
    tokens_out: int
    cut_tokens: tuple[int, ...] = ()
    cut_answers: tuple[str | None, ...] = ()
    score: float | None = None
    """A verifier's score, where one was recorded."""

    @property
    def least_tokens(self) -> int:
        """The fewest tokens at which an answer is known: the first cut, or the whole draw."""
        return self.cut_tokens[0] if self.cut_tokens else self.tokens_out

    def cut_at(self, tokens: int) -> str | None:
        """The last answer probed at or before that many tokens.

        Raises:
            LookupError: none was probed so early.
        """
        place = bisect_right(self.cut_tokens, tokens)
        if place == 0:
            raise LookupError(f"no answer was recorded before {self.least_tokens} tokens")
        return self.cut_answers[place - 1]


class RecordedPool:
    """The draws of one file, by model and address. Immutable; safe for several threads."""

    def __init__(self, name: str, table: pa.Table, revision: str) -> None:
        """Index a checked table; use `open_pool`."""
        self.name = name
        self.revision = revision
        """SHA-256 of the file: other content, other draws."""

        self._table = table
        self._rows: dict[Key, dict[int, int]] = {}
        columns = [table.column(c).to_pylist() for c in ("model", "stage", "example", "upstream", "draw")]
        for row, (model, stage, example, upstream, draw) in enumerate(zip(*columns, strict=True)):
            held = self._rows.setdefault((model, Address(stage, example, tuple(upstream or ()))), {})
            if draw in held:
                raise PoolError(f"{name}: rows {held[draw] + 1} and {row + 1} are both draw {draw} of {model}")
            held[draw] = row

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the recorded models, sorted."""
        return tuple(sorted({model for model, _ in self._rows}))

    @property
    def keys(self) -> Iterable[Key]:
        """Every model and address with draws."""
        return self._rows.keys()

    def stages(self, model: str) -> tuple[str, ...]:
        """Names of the stages a model was recorded on, sorted."""
        return tuple(sorted({address.stage for name, address in self._rows if name == model}))

    def held(self, model: str, address: Address) -> Mapping[int, int]:
        """Row by draw index; empty where nothing was recorded."""
        return self._rows.get((model, address), {})

    def recorded(self, row: int) -> Recorded:
        """The draw in a row."""
        values: dict[str, Any] = self._table.slice(row, 1).to_pylist()[0]
        return Recorded(
            values["answer"],
            values["tokens_in"],
            values["tokens_out"],
            tuple(values.get("cut_tokens") or ()),
            tuple(values.get("cut_answers") or ()),
            values.get("score"),
        )

    def least_tokens(self, model: str, stage: str) -> int:
        """The fewest ``max_tokens`` at which every recorded draw of a stage has a known answer."""
        return self._least.get((model, stage), 0)

    @cached_property
    def _least(self) -> dict[tuple[str, str], int]:
        least: dict[tuple[str, str], int] = {}
        whole = self._table.column("tokens_out").to_pylist()
        cuts = self._table.column("cut_tokens").to_pylist() if "cut_tokens" in self._table.column_names else None
        for (model, address), held in self._rows.items():
            key = (model, address.stage)
            for row in held.values():
                tokens = cuts[row][0] if cuts is not None and cuts[row] else whole[row]
                least[key] = max(least.get(key, 0), tokens)
        return least

    def examples(self, model: str, stage: str) -> frozenset[str]:
        """Ids of the examples a model was recorded on at a stage."""
        return frozenset(a.example for name, a in self._rows if name == model and a.stage == stage)

    def upstreams(self, model: str, stage: str, example: str) -> int:
        """How many different upstream answers were recorded."""
        return self._upstreams[model, stage, example]

    @cached_property
    def _upstreams(self) -> Counter[tuple[str, str, str]]:
        return Counter((model, a.stage, a.example) for model, a in self._rows)


def open_pool(path: Path) -> RecordedPool:
    """Read and check a pool; the same unchanged file is read once in a process.

    Raises:
        PoolError: unreadable, a column missing or of another type, or an unsound row.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise PoolError(f"{path}: cannot be read ({error.strerror}); give the path of a pool's Parquet file") from error
    if found.st_size > MAX_BYTES:
        raise PoolError(f"{path.name}: larger than {MAX_BYTES >> 30} GiB; split it by model")
    return _open(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _open(path: Path, modified: int, size: int) -> RecordedPool:
    try:
        content = path.read_bytes()
        table = pq.read_table(pa.BufferReader(content))
    except (OSError, pa.ArrowException) as error:
        raise PoolError(f"{path.name}: not a readable Parquet file ({error})") from error
    return RecordedPool(path.name, _checked(path.name, table), hashlib.sha256(content).hexdigest())


def _checked(name: str, table: pa.Table) -> pa.Table:
    """The known columns in their own types, every row sound."""
    missing = [column for column in _REQUIRED if column not in table.column_names]
    if missing:
        raise PoolError(f"{name}: no column {', '.join(missing)}; a pool has {', '.join(_REQUIRED)}")
    if len({"cut_tokens", "cut_answers"} & set(table.column_names)) == 1:
        raise PoolError(f"{name}: cut_tokens and cut_answers belong together; one of them is missing")
    if table.num_rows == 0:
        raise PoolError(f"{name}: holds no draws")
    wanted = {c: kind for c, kind in {**_REQUIRED, **_CUTS, **_SCORE}.items() if c in table.column_names}
    checked = pa.table({c: _cast(name, c, table.column(c), kind) for c, kind in wanted.items()})
    _require_sound(name, checked)
    return checked


def _cast(name: str, column: str, values: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        cast = values.cast(kind)
    except pa.ArrowException as error:
        raise PoolError(f"{name}: column {column} is {values.type}, expected {kind} ({error})") from error
    if column not in _NULLABLE and cast.null_count:
        raise PoolError(f"{name}: column {column} is null in row {_first(v is None for v in cast.to_pylist())}")
    return cast


def _require_sound(name: str, table: pa.Table) -> None:
    for column in ("draw", "tokens_in", "tokens_out"):
        values = table.column(column).to_numpy()
        if (values < 0).any():
            raise PoolError(f"{name}: column {column} is negative in row {_first(v < 0 for v in values)}")
    sound: dict[str, bool] = {}
    for row, answers in enumerate(table.column("upstream").to_pylist(), 1):
        for answer in answers or ():
            if answer is not None and not sound.setdefault(answer, _is_canonical(answer)):
                raise PoolError(
                    f"{name} row {row}: upstream {answer!r} is not the canonical JSON of an answer "
                    '(texts are quoted: ["\\"42\\""], keys sorted, no spaces)'
                )
    if "cut_tokens" in table.column_names:
        rows = zip(*(table.column(c).to_pylist() for c in ("cut_tokens", "cut_answers", "tokens_out")), strict=True)
        for row, (tokens, answers, whole) in enumerate(rows, 1):
            if not _are_cuts(tokens or (), answers or (), whole):
                raise PoolError(
                    f"{name} row {row}: cut_tokens must ascend from 1 or more, end below tokens_out ({whole}) and have "
                    "one of cut_answers each"
                )


def _are_cuts(tokens: Sequence[int | None], answers: Sequence[str | None], whole: int) -> bool:
    if len(tokens) != len(answers) or None in tokens:
        return False
    bounds = [0, *(token for token in tokens if token is not None), whole]
    return not tokens or all(low < high for low, high in pairwise(bounds))


def _is_canonical(answer: str) -> bool:
    try:
        return canonical(json.loads(answer)) == answer
    except ValueError:
        return False


def _first(wrong: Iterable[object]) -> int:
    """Number, from 1, of the first row that is wrong."""
    return next(row for row, bad in enumerate(wrong, 1) if bad)
