"""One run of a study in a worker: its steps, what may interrupt it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from env.errors import ApportionError
from planner.archive import Archive, ArchiveUnavailable, LeaseLost, StatusConflict, StudyStatus
from planner.durable.worker import Worker
from planner.loop import StudyCancelled, StudyContext, StudyInterrupted, StudyPaused, drop_old_texts, run_loop

WATCH_SECONDS = 0.5
"""How often a running step is checked for a cancel, a lost lease or the end of the process."""

UNWIND_SECONDS = 5.0
"""How long a step that is cut off may take to let go of what it holds."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 5.0
"""How long a study waits before it tries a database again that cannot serve: doubled each time, up to the longest."""

log = logging.getLogger(__name__)
Result = TypeVar("Result")
OpenStudy = Callable[[Archive, str], StudyContext]


class HandedBack(StudyInterrupted):
    """The worker is stopping; another one goes on with the study."""


class StudyRun:
    """Runs a study once, until it ends, pauses or is taken away.

    Args:
        worker: whose process this is.
        study_id: which study.
        epoch: number of the run.
        open_study: makes the study's context.
    """

    def __init__(self, worker: Worker, study_id: str, epoch: int, open_study: OpenStudy) -> None:
        self._worker = worker
        self._archive = worker.archive
        self._own = worker.archive.fenced(study_id, epoch)
        self._study_id = study_id
        self._epoch = epoch
        self._open = open_study
        self._waits = 0

    async def run(self) -> str:
        """Run it; returns in a word how this run ended. Never raises for what is the study's own failure."""
        try:
            return await self._run()
        except LeaseLost as lost:
            log.warning("%s", lost)
            return "taken over"
        except HandedBack:
            return "handed back"
        finally:
            self._worker.trouble.pop(self._study_id, None)

    async def _run(self) -> str:
        claim = self._archive.leases.claim
        if not await self.patiently(lambda: claim(self._study_id, self._epoch, self._worker.executor_id)):
            return "taken over"
        status, error = await self._attempt()
        while status == "paused":
            if await self.patiently(lambda: self._own.studies.pause(self._study_id)):
                return await self.patiently(lambda: self._say("paused"))
            # It was taken back meanwhile.
            status, error = await self._attempt()
        # Before the study says that it has ended: who waits for that, as the command line does, may leave at once.
        await drop_old_texts(self._own, self._study_id)
        return await self.patiently(lambda: self._finish(status, error))

    async def _attempt(self) -> tuple[StudyStatus, str]:
        """The loop; returns the status the study comes to, and why it failed."""
        self.interrupt()
        study = await self.patiently(lambda: self._own.studies.get(self._study_id))
        if study.cancel_requested:
            return "cancelled", ""
        if study.pause_requested:
            return "paused", ""
        if study.status not in ("queued", "running"):
            return study.status, study.error
        await self.patiently(lambda: self._finish("running"))
        context: StudyContext | None = None
        try:
            context = await self.patiently(lambda: self._open(self._own, self._study_id))
            context.interruption = self.interrupt
            await run_loop(context, ArchivedSteps(self, await self.patiently(self._known_steps)))
        except StudyCancelled:
            return "cancelled", ""
        except StudyPaused:
            return "paused", ""
        except (LeaseLost, HandedBack):
            raise
        except ApportionError as error:
            return "failed", str(error)
        except Exception as error:
            log.exception("study %s failed by a fault of the program", self._study_id)
            return "failed", f"internal error ({type(error).__name__}): {error}"
        finally:
            if context is not None:
                await context.close()
        return "done", ""

    def _known_steps(self) -> dict[str, object]:
        return self._own.steps.all(self._study_id)

    def keep_step(self, name: str, value: object) -> None:
        """Store what a step came to.

        Raises:
            ArchiveError: the database failed, or another run has the study.
        """
        self._own.steps.record(self._study_id, name, value)

    def _finish(self, status: StudyStatus, error: str = "") -> str:
        """Set a status and say so; a study that already ended keeps its end."""
        try:
            self._own.studies.set_status(self._study_id, status, error)
        except StatusConflict:
            return self._own.studies.get(self._study_id).status
        return self._say(status, error)

    def _say(self, status: StudyStatus, error: str = "") -> str:
        key = f"status-{status}" if self._epoch == 1 else f"status-{status}-{self._epoch}"
        self._own.events.append(self._study_id, "status", {"status": status, "error": error}, key)
        return status

    # Interruptions -----------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Stop here where the process is stopping; what is stored so far is kept.

        Raises:
            HandedBack: it is.
        """
        if self._worker.stopping.is_set():
            raise HandedBack(f"study {self._study_id} is handed back: its worker is stopping")

    async def watched(self, work: Awaitable[Result]) -> Result:
        """Do work, and cut it off as soon as nobody wants it any more, however long a model takes to answer.

        Raises:
            StudyCancelled: somebody asked the study to stop.
            LeaseLost: another run has the study.
            HandedBack: the process is stopping, and the time for that is up.
        """
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=WATCH_SECONDS))[0]:
                reason = await asyncio.to_thread(self._reason_to_stop)
                if reason is not None and not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=UNWIND_SECONDS)
                    raise reason
            return task.result()
        finally:
            task.cancel()

    def _reason_to_stop(self) -> ApportionError | None:
        try:
            if self._archive.studies.cancel_requested(self._study_id):
                return StudyCancelled(f"study {self._study_id} was cancelled; what it drew is kept")
            epoch = self._archive.leases.get(self._study_id).epoch
            if epoch != self._epoch:
                return LeaseLost(f"run {self._epoch} of study {self._study_id} was taken over by run {epoch}")
        except ArchiveUnavailable:
            pass  # the step itself will meet it, and wait
        if self._worker.stopping.is_set() and time.monotonic() >= self._worker.stop_by:
            return HandedBack(f"study {self._study_id} is handed back: its worker is stopping")
        return None

    # A database that is away -------------------------------------------------------------------------------------

    async def patiently(self, call: Callable[[], Result]) -> Result:
        """Make a call on the archive, again and again while its database cannot serve.

        Raises:
            HandedBack: the process is stopping meanwhile.
        """
        while True:
            try:
                result = call()
            except ArchiveUnavailable as trouble:
                await self.wait_out(trouble)
            else:
                self.at_work()
                return result

    async def wait_out(self, trouble: ArchiveUnavailable) -> None:
        """Wait a while before a database is tried again; says once why.

        Raises:
            HandedBack: the process is stopping.
        """
        if self._study_id not in self._worker.trouble:
            log.warning("study %s waits until its database serves again: %s", self._study_id, trouble)
        self._worker.trouble[self._study_id] = str(trouble)
        self.interrupt()
        await asyncio.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**self._waits))
        self._waits += 1
        self.interrupt()

    def at_work(self) -> None:
        """Say that the database serves."""
        self._waits = 0
        if self._worker.trouble.pop(self._study_id, None):
            log.warning("study %s goes on: its database serves again", self._study_id)


class ArchivedSteps:
    """Runs each step of the loop once: its result is kept in the archive, under the lease of the run.

    A step that a crash, a pause or a failing database cut off is run again, in this run or in the next.
    """

    def __init__(self, run: StudyRun, known: dict[str, object]) -> None:
        self._run = run
        self._known = known

    async def run(self, name: str, step: Callable[..., Awaitable[Result]], *args: object) -> Result:
        """See `planner.loop.Steps.run`."""
        if name in self._known:
            return self._known[name]  # type: ignore[return-value]
        while True:
            try:
                value = await self._run.watched(step(*args))
                self._run.keep_step(name, value)
            except ArchiveUnavailable as trouble:
                await self._run.wait_out(trouble)
            else:
                self._run.at_work()
                self._known[name] = value
                return value
