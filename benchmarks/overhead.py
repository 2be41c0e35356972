"""The planner's own time for a trial, without model time, in an archive that holds thousands of trials already.

Builds a study of 10,000 trials through the archive's own API (made-up evidence of 50 examples each), then runs rounds
of 4 trials on models that answer at once, and times what the planner does: reading the archive, guidelines, proposing,
review, reserving, recording, settling, events and progress. What the environment does (rendering, drawing, estimating)
is timed apart and left out. Ends with the time and memory that concluding takes.

    python -m benchmarks.overhead            # prints JSON, and writes benchmarks/results/overhead.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from env.allocation import Allocation
from env.backends import Draw, DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled
from env.execution.evidence import CurvePoint, ExampleEvidence, Spend, StageOutcome, TrialResult
from env.spec import StudySpec
from planner.archive import Archive, Claim, GuidelineRecord, ProposalRecord, open_archive
from planner.loop import StudyContext
from planner.loop.conclude import SearchTrials
from planner.loop.phases import Phases
from planner.space import SearchSpace

RESULTS = Path(__file__).parent / "results" / "overhead.json"
EXAMPLES = 50
BATCH = 4
CHOICES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Samples a stage may take, and the points of its curves."""


def the_spec(trials: int, proposer: str) -> StudySpec:
    """Three stages, three models, some ten thousand allocations and more."""
    model = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "none"}
    stages = [
        {
            "name": name,
            "prompt": [{"role": "user", "template": name + " {{ question }}"}],
            "models": ["small", "medium", "large"],
            "samples": {"min": 1, "max": 64, "choices": CHOICES},
            "tokens": {"prompt": 20, "output": 10},
        }
        for name in ("find", "read", "solve")
    ]
    return StudySpec.model_validate(
        {
            "name": "overhead",
            "pipeline": {
                "name": "overhead",
                "models": {
                    "small": {**model, "model": "small", "parameters": 1e9},
                    "medium": {**model, "model": "medium", "parameters": 3e9},
                    "large": {**model, "model": "large", "parameters": 8e9},
                },
                "stages": stages,
            },
            "data": {
                "source": "inline",
                "rows": [{"question": f"{n}", "answer": f"{n}"} for n in range(2 * EXAMPLES)],
                "search": EXAMPLES,
                "test": EXAMPLES,
            },
            "budget": {
                "plan": {"limit": 4e13, "unit": "flops"},
                "search": {"trials": trials, "tokens": 10**13, "min_gain": None},
            },
            "proposer": {"kind": proposer, "batch": BATCH},
        }
    )


class Instant:
    """A model that answers at once with the last word of the prompt."""

    def __init__(self, name: str) -> None:
        self.identity = ModelIdentity(name, "instant")

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.generate`."""
        for position, request in enumerate(requests):
            word = request.messages[-1].content.split()[-1]
            yield Settled(position, tuple(Draw(i, word, "stop", 20, 10, -1.0) for i in request.indices))

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        """See `Backend.score`."""
        raise NotImplementedError("no stage has a verifier")
        yield

    async def close(self) -> None:
        """See `Backend.close`."""


class Instants:
    """Backends by name."""

    def __init__(self) -> None:
        self._open: dict[str, Instant] = {}

    def backend(self, model: str) -> Any:
        """See `Backends.backend`."""
        return self._open.setdefault(model, Instant(model))


def made_up(allocation: Allocation, cost: float, rng: random.Random) -> TrialResult:
    """A trial's result, with evidence as large as real ones."""
    evidence = []
    for n in range(EXAMPLES):
        score = min(1.0, max(0.0, rng.gauss(0.6, 0.2)))
        outcomes = tuple(
            StageOutcome(stage, f'"{n}"', f"{rng.getrandbits(256):064x}", s.samples, s.samples, 20, 10 * s.samples)
            for stage, s in allocation.settings
        )
        curves = {
            stage: tuple(CurvePoint(k, score * (1 - 0.3 / k), 1.0, k) for k in CHOICES if k <= s.samples)
            for stage, s in allocation.settings
        }
        evidence.append(ExampleEvidence(f"e{n}", "scored", score, float(score > 0.5), "", outcomes, curves, cost))
    return TrialResult(allocation, tuple(evidence), cost, cost, Spend(500, 100, 20_000, 10_000, cost, 1.0))


def build(archive: Archive, spec: StudySpec, study_id: str, trials: int) -> None:
    """A study with so many trials, as if it had run."""
    space, rng = SearchSpace(spec), random.Random(1)
    archive.studies.create(study_id, spec.name, spec.model_dump(mode="json"), spec.seed)
    archive.studies.set_status(study_id, "running")
    allocations = space.sample(rng, trials)
    for start in range(0, len(allocations), BATCH):
        part, round_ = allocations[start : start + BATCH], start // BATCH
        archive.proposals.record(
            *(ProposalRecord(study_id, round_, 0, i, a, "insight", "accepted") for i, a in enumerate(part))
        )
        keys = [f"trial-{start + i + 1}" for i in range(len(part))]
        units = {"search": "draws", "search_tokens": "tokens", "search_flops": "FLOPs"}
        claims = [Claim(ledger, unit, 1000.0) for ledger, unit in units.items()]  # type: ignore[arg-type]
        archive.ledgers.reserve_batch(study_id, dict.fromkeys(keys, claims))
        for i, allocation in enumerate(part):
            result = made_up(allocation, space.total(allocation), rng)
            archive.trials.record(study_id, start + i + 1, "search", round_, result, space.unit)
            archive.ledgers.settle_entry(study_id, keys[i], dict.fromkeys(units, 500.0))  # type: ignore[arg-type]
        archive.guidelines.record(
            *(GuidelineRecord(study_id, round_, i, 1, None, f"guideline {i} of round {round_}") for i in range(7))
        )


class Clock:
    """Adds up the processor time of named parts; an inner part is not counted in the outer one.

    Processor time of the process, not a wall clock: what other programs on the machine do must not count. SQLite's
    writes are buffered (WAL), so that there is little waiting it leaves out; the wall clock's sum is given beside it.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.wall: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = self._since_wall = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time under this name."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def _switch(self) -> None:
        now, wall = time.process_time(), time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
            self.wall[self._running[-1]] += wall - self._since_wall
        self._since, self._since_wall = now, wall

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Count the time in a method, plain or async."""
        inner = getattr(owner, name)
        if asyncio.iscoroutinefunction(inner):

            async def counted_async(*args: Any, **kwargs: Any) -> Any:
                with self.part(part):
                    return await inner(*args, **kwargs)

            setattr(owner, name, counted_async)
        else:

            def counted(*args: Any, **kwargs: Any) -> Any:
                with self.part(part):
                    return inner(*args, **kwargs)

            setattr(owner, name, counted)


def watched(context: StudyContext, clock: Clock) -> None:
    """Count the parts of a context's work apart."""
    archive = context.archive
    clock.wrap(context.environment, "run_batch", "environment (left out)")
    clock.wrap(context.proposer, "propose", "propose")
    clock.wrap(context.insight, "reflect", "reflect")
    clock.wrap(context, "history", "history")
    clock.wrap(context, "journal", "journal")
    clock.wrap(archive.trials, "record", "record trials")
    clock.wrap(archive.proposals, "record", "record proposals")
    clock.wrap(archive.guidelines, "record", "record guidelines")
    clock.wrap(archive.events, "append", "events and progress")
    clock.wrap(archive.events, "append_all", "events and progress")
    clock.wrap(archive.studies, "set_progress", "events and progress")
    clock.wrap(context.budgets, "reserve", "ledgers")
    clock.wrap(context.budgets, "settle", "ledgers")
    clock.wrap(context.budgets, "settled", "ledgers")
    clock.wrap(context.budgets, "allowance", "ledgers")


async def rounds(archive: Archive, study_id: str, count: int) -> dict[str, Any]:
    """Milliseconds a trial by part, the median over rounds, the first opening of the study apart."""
    opened = time.perf_counter()
    context = StudyContext(archive, study_id, {}, Instants())
    context.journal()
    opening = time.perf_counter() - opened
    phases = Phases(context)
    first = max(context.journal().by_round) + 1
    measured: list[dict[str, float]] = []
    walls: list[float] = []
    for round_ in range(first, first + count):
        clock = Clock()
        if round_ == first:
            originals = dict(vars(context))
        watched(context, clock)
        with clock.part("review and the rest"):
            await phases.propose(round_, 0)
            ran = await phases.execute(round_)
            await phases.reflect(round_)
        assert ran == BATCH, ran
        measured.append({name: 1000 * seconds / ran for name, seconds in clock.seconds.items()})
        walls.append(1000 * sum(s for name, s in clock.wall.items() if "left out" not in name) / ran)
        _unwatch(context, originals)
    await context.close()
    names = sorted({name for one in measured for name in one})
    parts = {name: round(statistics.median(one.get(name, 0.0) for one in measured), 3) for name in names}
    own = [sum(ms for name, ms in one.items() if "left out" not in name) for one in measured]
    proposing = [one.get("propose", 0.0) for one in measured]
    return {
        "opening_s": round(opening, 3),
        "ms_per_trial": round(statistics.median(own), 3),
        "wall_ms_per_trial": round(statistics.median(walls), 3),
        "ms_per_trial_without_proposing": round(
            statistics.median(total - part for total, part in zip(own, proposing, strict=True)), 3
        ),
        "by_part_ms": parts,
    }


def _unwatch(context: StudyContext, originals: dict[str, Any]) -> None:
    """Take the counters off, so that the next round begins with none."""
    archive = context.archive
    for owner in (
        context.environment, context.proposer, context.insight, context.budgets,
        archive.trials, archive.proposals, archive.guidelines, archive.events, archive.studies,
    ):  # fmt: skip
        for name in [
            n
            for n, value in vars(owner).items()
            if callable(value) and getattr(value, "__name__", "").startswith("counted")
        ]:
            delattr(owner, name)
    for name in [n for n in vars(context) if n not in originals]:
        delattr(context, name)


def concluding(archive: Archive, study_id: str) -> dict[str, float]:
    """Time to gather all contenders, and how much memory the process has needed at most."""
    context = StudyContext(archive, study_id, {}, Instants())
    before = _peak_mb()
    started = time.perf_counter()
    found = SearchTrials(context).contenders()
    return {
        "contenders": len(found),
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_mb": round(_peak_mb(), 1),
        "peak_memory_before_mb": round(before, 1),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], None]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(trials: int, count: int, proposers: Sequence[str], file: Path) -> dict[str, Any]:
    """The whole benchmark, in an archive that is built where the file is missing."""
    url = f"sqlite:///{file}"
    results: dict[str, Any] = {}
    building: float | None = None
    with open_archive(url) as archive:
        spec = the_spec(2 * trials, proposers[0])
        if not archive.studies.list():
            building = round(timed(lambda: build(archive, spec, "long", trials)), 1)
        held = len(archive.trials.list("long", curves=False))
    for proposer in proposers:
        with open_archive(url) as archive:
            _set_proposer(archive, "long", spec.model_dump(mode="json"), proposer)
            results[proposer] = asyncio.run(rounds(archive, "long", count))
            print(json.dumps({proposer: results[proposer]}), file=sys.stderr, flush=True)
    with open_archive(url) as archive:
        ending = concluding(archive, "long")
    return {
        "trials": held,
        "examples": EXAMPLES,
        "batch": BATCH,
        "rounds": count,
        "archive_mb": round(file.stat().st_size / 1e6, 1),
        "building_s": building,
        "python": platform.python_version(),
        "target_ms_per_trial": 25,
        "proposers": results,
        "concluding": ending,
    }


def _set_proposer(archive: Archive, study_id: str, raw: dict[str, Any], proposer: str) -> None:
    from sqlalchemy import update

    from planner.archive.tables import StudyRow, table_of

    changed = {**raw, "proposer": {**raw["proposer"], "kind": proposer}}
    table = table_of(StudyRow)
    with archive.engine.begin() as connection:
        connection.execute(update(table).where(table.c.id == study_id).values(spec=changed))


def main() -> None:
    """Measure as the command line says, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--proposers", nargs="+", default=["random", "insight"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--archive", type=Path, help="Built here and kept, so that the next run need not build it.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.archive or Path(folder, "archive.db")
        found = measure(arguments.trials, arguments.rounds, arguments.proposers, file)
    text = json.dumps(found, indent=2)
    print(text)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
