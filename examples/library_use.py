"""A study from Python, without a queue: parse a spec, run it, read the plan."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from env.spec.load import load_spec
from planner import run_study


def main() -> None:
    """Run the study of a spec file and print its plan."""
    spec = load_spec(Path(sys.argv[1]))
    plan = asyncio.run(run_study(spec, archive="sqlite:///study.db"))
    print(plan.explanation)
    print(plan.to_yaml())


if __name__ == "__main__":
    main()
