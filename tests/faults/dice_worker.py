"""A real worker process whose models are slow dice: submits or resumes a study and waits for its end.

Usage: python -m tests.faults.dice_worker ARCHIVE_URL JOBS_URL LOG (submit|resume) STUDY_ID
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence

from env.backends import DrawRequest, Failed, ScoreRequest, Settled
from env.bank import draw_key, score_key
from planner.archive import Archive
from planner.archive.statuses import TERMINAL
from planner.durable import Runtime, workflows
from planner.loop import StudyContext
from tests.simulated import DiceBackend, DiceBackends, simulated_spec

PAUSE_EVERY, PAUSE_SECONDS = 40, 0.03


class LoggedDice(DiceBackend):
    """Writes every draw and every score it makes to a file before handing it out, and takes its time."""

    def __init__(self, model: str, log: str) -> None:
        super().__init__(model)
        self._log = log

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        with open(self._log, "a") as log:  # noqa: ASYNC230 - a line before each draw is handed out is the point
            async for outcome in super().generate(requests):
                if isinstance(outcome, Settled):
                    request = requests[outcome.position]
                    key = draw_key(self.identity, request.messages, request.sampling)
                    log.write("".join(f"{key} {draw.index}\n" for draw in outcome.draws))
                    log.flush()
                yield outcome
                if outcome.position % PAUSE_EVERY == 0:
                    await asyncio.sleep(PAUSE_SECONDS)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        with open(self._log, "a") as log:  # noqa: ASYNC230 - as above
            async for outcome in super().score(requests):
                request = requests[outcome.position]
                log.write(f"{score_key(self.identity, request.messages, request.partial)} 0\n")
                log.flush()
                yield outcome


class LoggedDiceBackends(DiceBackends):
    def __init__(self, log: str) -> None:
        super().__init__()
        self._log = log

    def backend(self, model: str) -> DiceBackend:
        if model not in self.open:
            self.open[model] = LoggedDice(model, self._log)
        return self.open[model]


def main() -> None:
    archive_url, jobs_url, log, action, study_id = sys.argv[1:6]

    def context(archive: Archive, identity: str) -> StudyContext:
        return StudyContext(archive, identity, {}, LoggedDiceBackends(log))

    workflows.StudyContext = context  # type: ignore[assignment,misc]
    with Runtime(archive_url, jobs_url) as runtime:
        if action == "submit":
            spec = simulated_spec()
            raw = spec.model_dump(mode="json")
            runtime.start(runtime.archive.studies.create(study_id, spec.name, raw, spec.seed))
        elif action == "resume":
            runtime.resume(study_id)
        print("ready", flush=True)
        while runtime.archive.studies.get(study_id).status not in TERMINAL:
            time.sleep(0.05)
        print(runtime.archive.studies.get(study_id).status, flush=True)
    # DBOS and torch keep threads; everything is stored, so leave without waiting for them.
    os._exit(0)


if __name__ == "__main__":
    main()
