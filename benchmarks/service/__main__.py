"""Loads the service, and reads a large archive through it; prints JSON, and writes benchmarks/results/service.json.

    python -m benchmarks.service                          # both; about ten minutes, most of it to build the archive
    python -m benchmarks.service --keep FOLDER            # keeps the archive, so that the next run need not build it
    python -m benchmarks.service load --clients 100       # one of them

`load`: 100 clients submit 1,000 studies and read lists, pages and streams of a real ``apportion serve`` on SQLite,
whose worker runs studies all the while. `reads`: every page and list of an archive of a million draws and 10,000
trials. Loopback only, and bounded: each client sends so many requests, and none after --seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.service.load import measure_load
from benchmarks.service.reads import measure_reads

RESULTS = Path(__file__).parents[1] / "results" / "service.json"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["load", "reads", []], help="both where none is named")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--studies", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=100, help="of each client, its submissions among them")
    parser.add_argument("--think", type=float, default=1.0, help="mean pause of a client between requests, in seconds")
    parser.add_argument("--seconds", type=float, default=300, help="no request is begun after so many")
    parser.add_argument("--draws", type=int, default=1_000_000)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="folder in which the large archive is kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="parts that are not measured again stay in this file")
    asked = parser.parse_args()
    found: dict[str, Any] = {"benchmark": "service"}
    if asked.out.is_file():
        found = json.loads(asked.out.read_text(encoding="utf-8"))
    if "reads" in asked.parts or not asked.parts:
        found["reads"] = measure_reads(asked.keep, asked.draws, asked.trials)
    if "load" in asked.parts or not asked.parts:
        with tempfile.TemporaryDirectory() as home:
            found["load"] = measure_load(
                Path(home), asked.clients, asked.studies, asked.requests, asked.think, asked.seconds
            )
    text = json.dumps(found, indent=2)
    print(text)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
