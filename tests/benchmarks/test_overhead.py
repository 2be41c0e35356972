"""The benchmark of the planner's own time runs, and says what it is about."""

from __future__ import annotations

from pathlib import Path

from benchmarks.overhead import measure


def test_a_small_archive_is_built_and_every_part_is_timed(tmp_path: Path) -> None:
    found = measure(12, 1, ["insight"], tmp_path / "archive.db")
    # Twelve that were built, and four of the round that was timed.
    assert (found["trials"], found["concluding"]["contenders"]) == (12, 16)
    timed = found["proposers"]["insight"]
    assert 0 < timed["by_part_ms"]["propose"] < timed["ms_per_trial"]
