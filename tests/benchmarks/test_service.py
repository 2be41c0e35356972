"""The benchmark of the service finds what it asks for, and loses nothing it submits."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.service.load import measure_load


@pytest.mark.slow
def test_every_study_that_clients_submit_is_kept_once_with_its_key_and_has_a_job(tmp_path: Path) -> None:
    found = measure_load(tmp_path, clients=3, studies=6, requests=8, think_s=0.05, most_s=60)
    assert found["unexpected"] == {}
    kept = found["submissions"]
    assert (kept["keys"], kept["held"], kept["lost_or_doubled"], kept["without_a_job"]) == (7, 7, 0, 0)
    assert found["healthz"]["failed"] == 0
    assert found["reads"]["count"] >= 3 * 8 - 6
