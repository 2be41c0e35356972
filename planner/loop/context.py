"""Everything a running study works with, opened from its archive row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from env.allocation import Allocation, StageSetting
from env.backends.pool import BackendPool, Backends
from env.costs import CostOptions
from env.errors import ApportionError
from env.execution import Environment, Progress
from env.spec import StudySpec
from env.tasks.data import Splits, load_splits
from planner.answered import Answered
from planner.archive import Archive, ProposalRecord, TrialRecord
from planner.history import CurveEstimate, Guideline, History, PendingView, RefusedView, TrialView
from planner.loop.accounts import CALL, StudyAccounts
from planner.loop.experience import past_tasks
from planner.loop.results import TrialResults
from planner.proposers import Ablation, InsightProposer, Proposer, ProposerSetup, open_proposer
from planner.proposers.registry import may_ask_llm
from planner.space import SearchSpace

EVENT_SECONDS = 0.7
"""Progress is written at most this often."""


class StudyCancelled(ApportionError):
    """Somebody asked the study to stop."""


class StudyContext:
    """A study's spec, space, data, backends and proposer, with reads and writes of its archive in the loop's terms."""

    def __init__(
        self,
        archive: Archive,
        study_id: str,
        environ: Mapping[str, str] | None = None,
        backends: Backends | None = None,
    ) -> None:
        """Open a study.

        Args:
            archive: holds the study.
            study_id: which.
            environ: where to look for the agent's LLM; the process's environment by default.
            backends: models to use instead of those of the spec.

        Raises:
            ApportionError: the study's data, checkpoints or proposer cannot be opened.
        """
        self.archive = archive
        self.study_id = study_id
        self.spec = StudySpec.model_validate(dict(archive.studies.get(study_id).spec))
        self.space = SearchSpace(self.spec)
        self.splits: Splits = load_splits(self.spec.data)
        self._pool = BackendPool(self.spec.pipeline.models, tenant=study_id)
        self.backends: Backends = backends or self._pool
        self.owns_backends = backends is None
        """Whether models are served as the spec says."""

        self.environment = Environment(
            self.spec.pipeline,
            self.spec.budget.plan.unit,
            archive.bank,
            self.backends,
            self.spec.seed,
            CostOptions.of(self.spec.budget.plan),
        )
        self.ablation = Ablation.of(self.spec.proposer.ablate)
        self.insight = InsightProposer(self.space, self.spec.seed, self.spec.proposer.batch, ablation=self.ablation)
        self.accounts = StudyAccounts(archive, study_id, self.spec.budget.proposer)
        self.results = TrialResults(archive, study_id)
        self.proposer = self._open_proposer(os.environ if environ is None else environ)
        self._last_event = 0.0

    def _open_proposer(self, environ: Mapping[str, str]) -> Proposer:
        # Imported here: only studies with an LLM need its client.
        from planner.proposers.agent import resolve_llm

        kind = self.spec.proposer.kind
        setup = ProposerSetup(
            self.space,
            self.spec.seed,
            self.spec.proposer.batch,
            self.spec.description,
            resolve_llm(self.spec.proposer, environ) if may_ask_llm(kind) else None,
            self.proposer_tokens_left,
            self.ablation,
            lambda: past_tasks(self.archive, self.study_id),
            self.accounts,
        )
        return open_proposer(kind, setup)

    async def close(self) -> None:
        """Release backends and the proposer."""
        await self.proposer.close()
        await self._pool.close()

    def serve_as(self, model: str, variant: str) -> None:
        """See `BackendPool.serve_as`."""
        self._pool.serve_as(model, variant)

    # What the archive says ---------------------------------------------------------------------------------------

    def trials(self) -> list[TrialRecord]:
        """Trials on the search split, by number."""
        return self.archive.trials.list(self.study_id, "search")

    def proposals(self) -> list[ProposalRecord]:
        """Every proposal so far, in the order they were made; without the LLM calls, whose prompts are long."""
        return self.archive.proposals.list(self.study_id, without=CALL)

    def calls(self) -> list[ProposalRecord]:
        """Every LLM call so far, in the order they were made."""
        return [p for p in self.archive.proposals.list(self.study_id) if p.origin == CALL]

    def accepted(self) -> list[ProposalRecord]:
        """Accepted proposals in order; the position in this list, from 1, is the trial's number."""
        return [p for p in self.proposals() if p.verdict == "accepted" and p.allocation is not None]

    def history(self, round_: int) -> History:
        """What a proposer may see."""
        refused = [
            RefusedView(p.round, p.allocation, (p.reply or "")[:500], p.verdict_reason)
            for p in self.proposals()
            if p.verdict == "refused"
        ]
        guidelines = [
            Guideline(g.round, g.insight, g.text, g.stage, g.structured)
            for g in self.archive.guidelines.list(self.study_id)
        ]
        trials, pending = self._views()
        return History(
            round_,
            trials,
            tuple(refused),
            tuple(guidelines),
            self.trials_left(),
            pending,
            self.results.differences(trials) if self.proposer.kind == "agent" else {},
        )

    def _views(self) -> tuple[tuple[TrialView, ...], tuple[PendingView, ...]]:
        """Trials with a score, and accepted allocations without one."""
        run = {t.trial_no: t for t in self.trials()}
        scored: list[TrialView] = []
        pending: list[PendingView] = []
        for number, proposal in enumerate(self.accepted(), 1):
            trial = run.get(number)
            if trial is not None and trial.score is not None:
                scored.append(_view(trial, proposal))
            elif proposal.allocation is not None:
                problem = "" if trial is None else self.results.problem(number)
                pending.append(PendingView(proposal.allocation, proposal.origin, problem))
        return tuple(scored), tuple(pending)

    def answered(self) -> Answered:
        """Which allocations need no trial, by what has run."""
        return Answered(self.space, self._views()[0], self.results)

    def taken(self) -> set[Allocation]:
        """Allocations that ran or are accepted."""
        return {p.allocation for p in self.accepted() if p.allocation is not None}

    def trials_left(self) -> int:
        """Trials the search budget still allows."""
        return max(0, self.spec.budget.search.trials - len(self.accepted()))

    def proposer_tokens_left(self) -> int:
        """Tokens the agent's LLM may still use."""
        used = self.archive.ledgers.usage(self.study_id, "proposer").total
        return max(0, self.spec.budget.proposer.tokens - int(used))

    # Progress ----------------------------------------------------------------------------------------------------

    def enter(self, phase: str, round_: int) -> None:
        """Say which phase of the loop begins; stop here where a cancel was asked for.

        Raises:
            StudyCancelled: somebody asked.
        """
        self.check_cancel()
        self.archive.studies.set_progress(self.study_id, phase, round_)
        self.event("phase", {"phase": phase, "round": round_})

    def event(self, kind: str, payload: Mapping[str, object], key: str | None = None) -> None:
        """Write an event for whoever watches."""
        self.archive.events.append(self.study_id, kind, payload, key)

    def check_cancel(self) -> None:
        """Stop where a cancel was asked for.

        Raises:
            StudyCancelled: somebody asked.
        """
        if self.archive.studies.cancel_requested(self.study_id):
            raise StudyCancelled(f"study {self.study_id} was cancelled; what it drew is kept")

    def progress_sink(self, round_: int, what: str) -> Callable[[Progress], None]:
        """Progress of a batch as throttled events; also the place where a running batch notices a cancel."""

        def sink(progress: Progress) -> None:
            now = time.monotonic()
            if now - self._last_event < EVENT_SECONDS and progress.done < progress.total:
                return
            self._last_event = now
            self.check_cancel()
            remaining = progress.remaining_seconds
            self.event(
                "progress",
                {
                    "round": round_,
                    "what": what,
                    "stage": progress.stage,
                    "model": progress.model,
                    "done": progress.done,
                    "total": progress.total,
                    "draws_per_second": round(progress.draw_rate, 1),
                    "remaining_seconds": None if remaining is None else round(remaining, 1),
                },
            )

        return sink


def reference_allocation(space: SearchSpace) -> Allocation | None:
    """What one would do without a planner: the largest model that every stage may use and the budget buys, once."""
    stages = space.pipeline.stages
    common = [m for m in space.pipeline.models if all(m in s.models and 1 in s.samples.values() for s in stages)]
    for model in sorted(common, key=lambda m: -space.cost.parameters[m]):
        allocation = Allocation.of({s.name: StageSetting(model, s.strategies[0], 1) for s in stages})
        if not space.faults(allocation):
            return allocation
    return None


def _view(trial: TrialRecord, proposal: ProposalRecord) -> TrialView:
    assert trial.score is not None
    return TrialView(
        trial.trial_no,
        trial.round,
        trial.allocation,
        trial.score,
        trial.standard_error or 0.0,
        trial.predicted_cost,
        trial.measured_cost or trial.predicted_cost,
        trial.spend.new_draws,
        {
            stage: tuple(CurveEstimate(p.k, p.score, p.coverage) for p in points if p.score is not None)
            for stage, points in trial.curves.items()
        },
        origin=proposal.origin,
        expected_score=proposal.expected_score,
    )
