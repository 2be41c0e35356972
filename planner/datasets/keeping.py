"""Keeps data sets: one JSON Lines file each below the data root, one row in the archive."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from env.spec import Fault
from env.tasks.data import MAX_BYTES, DataError, data_root, example_of
from planner.archive import Archive, DatasetRecord
from planner.datasets.errors import DiskFull, FaultyRows, StillNeeded, TooLarge
from planner.datasets.reading import DatasetFormat, rows_of

FOLDER = "datasets"
"""Below the data root; specs name files in it like any other."""

INCOMING = ".incoming"
MOST_FAULTS = 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Limits:
    """What an upload may be at most."""

    bytes: int
    rows: int


class DatasetStore:
    """The data sets of an archive and a data root; safe to share between threads.

    Files are named by their content and never changed, so that a spec that names one stays what it was.
    """

    def __init__(self, archive: Archive, limits: Limits) -> None:
        """Bind to an archive; the data root is that of specs."""
        self._archive = archive
        self.limits = limits

    @contextmanager
    def incoming(self) -> Iterator[IO[bytes]]:
        """A file to write an upload to; it goes at the end of the block.

        Raises:
            DiskFull: the disk is.
        """
        with _explained():
            folder = data_root() / FOLDER / INCOMING
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder)
            os.close(handle)
        try:
            with _explained(), open(name, "wb") as file:
                yield file
        finally:
            with suppress(OSError):
                os.unlink(name)

    def write(self, file: IO[bytes], chunk: bytes) -> None:
        """Add to an upload.

        Raises:
            TooLarge: it grows beyond the limit.
            DiskFull: the disk is.
        """
        if file.tell() + len(chunk) > self.limits.bytes:
            raise TooLarge(f"the data set is larger than {self.limits.bytes:,} bytes (APPORTION_UPLOAD_BYTES)")
        with _explained():
            file.write(chunk)

    def keep(self, name: str, file: IO[bytes], format: DatasetFormat) -> DatasetRecord:
        """Check an upload row by row and enter it; the same content under the same name changes nothing.

        Args:
            name: unique.
            file: what `incoming` gave, written.
            format: of what was written.

        Raises:
            FaultyRows: with the first faults; nothing was kept.
            TooLarge: it has more rows than allowed.
            StatusConflict: another data set has this name.
            DiskFull: the disk is; nothing was kept.
        """
        with _explained():
            file.flush()
        with self.incoming() as clean:
            digest, rows, fields = self._convert(Path(file.name), format, clean)
            with _explained():
                clean.flush()
                os.fsync(clean.fileno())
                size = clean.tell()
            relative = f"{FOLDER}/{name}-{digest[:12]}.jsonl"
            target = data_root() / relative
            fresh = not target.exists()
            with _explained():
                # A second name for the same bytes: the first one goes when the block ends.
                if fresh:
                    with suppress(FileExistsError):
                        os.link(clean.name, target)
                        os.chmod(target, 0o644)
            try:
                return self._archive.datasets.enter(name, digest, relative, rows, size, fields, format)
            except BaseException:
                if fresh:
                    with suppress(OSError):
                        target.unlink()
                raise

    def rows(self, record: DatasetRecord, first: int, limit: int) -> list[dict[str, Any]]:
        """Rows from place `first` (from 0) on, at most `limit`.

        Raises:
            DataError: the file is gone.
        """
        try:
            with (data_root() / record.path).open(encoding="utf-8") as lines:
                return [json.loads(line) for line in itertools.islice(lines, first, first + limit)]
        except OSError as error:
            raise DataError(f"{record.path} cannot be read below the data root: {error.strerror}") from error

    def delete(self, name: str) -> None:
        """Remove a data set and its file.

        Raises:
            NotFound: there is none of this name.
            StillNeeded: a schedule or an unfinished study reads it.
        """
        record = self._archive.datasets.get(name)
        users = self._archive.datasets.users(record.path)
        if users:
            raise StillNeeded(f"the data set {name!r} is read by {', '.join(users[:5])}; end or delete that first")
        self._archive.datasets.delete(name)
        with suppress(FileNotFoundError):
            (data_root() / record.path).unlink()

    def _convert(self, path: Path, format: DatasetFormat, clean: IO[bytes]) -> tuple[str, int, list[str]]:
        """Write the rows as JSON Lines; their digest, number and fields."""
        digest, count, fields, seen = hashlib.sha256(), 0, dict[str, None](), set[str]()
        faults: list[Fault] = []
        for place, row in rows_of(path, format):
            count += 1
            if count > self.limits.rows:
                raise TooLarge(f"the data set has more than {self.limits.rows:,} rows (APPORTION_UPLOAD_ROWS)")
            fault = row if isinstance(row, Fault) else _fault(row, place, count, seen)
            if fault is not None:
                faults.append(fault)
                if len(faults) == MOST_FAULTS:
                    break
                continue
            assert isinstance(row, dict)
            if not faults:
                fields.update(dict.fromkeys(row))
                line = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
                digest.update(line)
                with _explained():
                    clean.write(line)
                if clean.tell() > MAX_BYTES:
                    raise TooLarge(f"unpacked, the data set is larger than the {MAX_BYTES >> 20} MiB a study may read")
        if not faults and count < 2:
            faults.append(Fault("", "a search split and a sealed test split need at least two rows"))
        if faults:
            raise FaultyRows(faults)
        return digest.hexdigest(), count, [name for name in fields if name not in ("id", "answer", "answers")]


def _fault(row: dict[str, Any], place: str, number: int, seen: set[str]) -> Fault | None:
    """What is wrong with a row; None where nothing is. Its id is noted."""
    try:
        for value in _leaves(row):
            if isinstance(value, float) and not math.isfinite(value):
                return Fault(place, "holds a number that is not finite")
            if isinstance(value, str) and ("\x00" in value or any("\ud800" <= c <= "\udfff" for c in value)):
                return Fault(place, "holds characters that cannot be stored (NUL or half a surrogate pair)")
        example = example_of(row, place, str(number))
    except DataError as error:
        return Fault(place, str(error).removeprefix(f"{place}: "))
    except RecursionError:
        return Fault(place, "nested too deeply")
    if example.id in seen:
        return Fault(place, f"a second row with the id {example.id!r}")
    seen.add(example.id)
    return None


def _leaves(value: Any) -> Iterator[Any]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield from item
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        else:
            yield item


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f"the disk of the data root {data_root()} is full; free space and send it again") from error
        raise DataError(f"the data root {data_root()} cannot be written: {error.strerror or error}") from error
