"""An archive whose writer is killed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from planner.archive import open_archive
from tests.planner.archive.samples import a_result

EXAMPLES = 200
WRITER = f"""
import sys
from planner.archive import open_archive
from tests.planner.archive.samples import a_result
archive = open_archive(sys.argv[1])
number = len(archive.trials.list("s"))
while True:
    archive.trials.record("s", number, "search", 0, a_result((0.5,) * {EXAMPLES}), "flops")
    print(number, flush=True)
    number += 1
"""


@pytest.mark.faults
def test_a_killed_writer_leaves_whole_trials_only(url: str) -> None:
    with open_archive(url) as archive:
        archive.studies.create("s", "s", {}, seed=0)
        for moment_s in (0.0, 0.013):
            told = _write_and_kill(url, moment_s)
            trials = archive.trials.list("s")
            assert [trial.trial_no for trial in trials] == list(range(len(trials)))
            assert len(trials) >= told + 1, "a trial that was reported is kept"
            for trial in trials:
                assert len(archive.trials.evidence("s", trial.trial_no)) == EXAMPLES
        next_no = len(archive.trials.list("s"))
        assert archive.trials.record("s", next_no, "search", 0, a_result(), "flops").trial_no == next_no


def _write_and_kill(url: str, moment_s: float) -> int:
    """Run a writer, kill it a moment after its fourth trial, return the last one it told of."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        told = [int(writer.stdout.readline()) for _ in range(4)]
        time.sleep(moment_s)
    finally:
        writer.kill()
        rest = writer.communicate(timeout=20)[0]
    return max([*told, *(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
