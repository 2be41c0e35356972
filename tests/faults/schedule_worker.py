"""A real worker process whose models are slow dice: enters a run of the schedule `nightly`, or waits for what there is.

Usage: python -m tests.faults.schedule_worker ARCHIVE_URL JOBS_URL LOG (run|wait)
"""

from __future__ import annotations

import os
import sys
import time

from planner.archive import Archive, SchedulePlan
from planner.durable import Runtime, schedules, workflows
from planner.durable.schedules import run_now
from planner.loop import StudyContext
from planner.schedules import revalidation
from tests.faults.dice_worker import LoggedDiceBackends
from tests.simulated import simulated_spec


def main() -> None:
    archive_url, jobs_url, log, action = sys.argv[1:5]
    backends = LoggedDiceBackends(log)

    class Opened:
        backend = staticmethod(backends.backend)

        async def close(self) -> None:
            pass

    def context(archive: Archive, identity: str) -> StudyContext:
        return StudyContext(archive, identity, {}, LoggedDiceBackends(log))

    workflows.StudyContext = context  # type: ignore[assignment,misc]
    revalidation.open_backends = lambda spec, tenant: Opened()  # type: ignore[assignment,return-value]
    schedules.TICK_S = 0.1
    spec = simulated_spec(budget={"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 4}})
    with Runtime(archive_url, jobs_url) as runtime:
        archive = runtime.archive
        archive.schedules.create("nightly", SchedulePlan(spec.model_dump(mode="json"), cron="0 0 1 1 *"))
        if action == "run":
            run_now(archive, "nightly")
        print("ready", flush=True)
        while archive.schedule_runs.unfinished():
            time.sleep(0.05)
        print(archive.schedule_runs.list("nightly", 1)[0].outcome, flush=True)
    # DBOS and torch keep threads; everything is stored, so leave without waiting for them.
    os._exit(0)


if __name__ == "__main__":
    main()
