"""A study's trials and proposals as the loop asks for them: read once, kept current, the archive stays the truth."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from env.allocation import Allocation
from planner.archive import Archive, KPoint, ProposalRecord, TrialRecord
from planner.history import CurveEstimate, PendingView, RefusedView, TrialView

CALL = "call"
"""Origin of the rows that keep a proposer's LLM calls; they are no proposals."""

CURVES_OF = 100
"""Trials whose k-curves a proposer sees: so many of the best and so many of the newest. Curves are most of a trial, and
those of old trials that did not do well change no decision."""

REFUSED_KEPT = 200
"""Refused proposals a proposer sees, the newest."""

Curves = Mapping[str, tuple[KPoint, ...]]


class Journal:
    """What the archive holds of one study, in memory.

    Trials and proposals are only ever added. `refresh` asks the archive how many there are, which is one look at an
    index, and reads those that are newer than what is held: trials above the highest number, proposals from the newest
    round on. Where the sums then differ (a process that was thought dead wrote something older), it reads everything
    again. So what is answered is what the archive holds, whoever wrote it.

    Used from one thread.
    """

    def __init__(
        self, archive: Archive, study_id: str, feasible: Callable[[TrialRecord], bool] = lambda trial: True
    ) -> None:
        """Of one study; `feasible` says whether a trial meets the constraints that only a run can judge."""
        self._feasible = feasible
        self._archive = archive
        self._study_id = study_id
        self._forget()

    def _forget(self) -> None:
        self._rows = 0
        """Trials read, those of the sealed split included."""

        self._last: int | None = None
        """Highest number of them."""

        self.trials: list[TrialRecord] = []
        """On the search split by number, without curves."""

        self.numbers: set[int] = set()
        self.views: list[TrialView] = []
        """Of the trials with a score, by number; see `CURVES_OF`."""

        self._place: dict[int, int] = {}
        self._with_curves: set[int] = set()
        self._best: list[int] = []
        self._ranked = 0
        """Views that `_best` was chosen from."""

        self.drift = 1.0
        """Largest measured cost over the predicted one of any trial; at least 1."""

        self._open: dict[int, ProposalRecord] = {}
        """Accepted proposals without a score, by the number of their trial."""

        self._known: set[tuple[int, int, int]] = set()
        self._newest: tuple[int, int, int] | None = None
        """(round, attempt, position) of the last proposal that was read."""

        self.accepted: list[ProposalRecord] = []
        self.taken: set[Allocation] = set()
        """Their allocations."""

        self.by_round: dict[int, list[ProposalRecord]] = {}
        """Without the prompts and replies of LLM calls."""

        self._calls: dict[int, dict[bool, bool]] = {}
        """By round in which the LLM was asked: (whether for allocations) -> whether any call was answered."""

        self.accepted_by_round: dict[int, list[int]] = {}
        """Numbers of the trials that a round's accepted proposals become."""

        self.refused: deque[RefusedView] = deque(maxlen=REFUSED_KEPT)
        self.refused_count = 0

    def refresh(self) -> Journal:
        """Read what is new; returns itself.

        Raises:
            ArchiveError: the database failed.
        """
        trials, proposals = self._archive.studies.sizes(self._study_id)
        searched = self._read_trials() if trials != self._rows else []
        in_order = proposals == len(self._known) or self._read_proposals()
        # Counted before reading: rows that are added meanwhile make what is held more, never less.
        if not in_order or self._rows < trials or len(self._known) < proposals:
            self._forget()
            searched = self._read_trials()
            self._read_proposals()
        self._view(searched)
        return self

    @property
    def answered(self) -> dict[int, bool]:
        """Rounds in which the proposer's LLM was asked -> whether it was of use.

        A round in which it was asked for allocations is judged by those calls: guidelines alone are of no use. In
        others it had no share of the batch.
        """
        return {round_: calls.get(True, calls.get(False, False)) for round_, calls in self._calls.items()}

    def pending(self, problem: Callable[[int], str] = lambda number: "") -> tuple[PendingView, ...]:
        """Accepted allocations without a score; `problem` says of a trial, by number, why it has none."""
        return tuple(
            PendingView(proposal.allocation, proposal.origin, problem(number) if number in self.numbers else "")
            for number, proposal in sorted(self._open.items())
            if proposal.allocation is not None
        )

    # Trials ------------------------------------------------------------------------------------------------------

    def _read_trials(self) -> list[TrialRecord]:
        """The new ones on the search split."""
        new = self._archive.trials.list(self._study_id, after=self._last, curves=False)
        self._rows += len(new)
        self._last = new[-1].trial_no if new else self._last
        searched = [trial for trial in new if trial.split == "search"]
        for trial in searched:
            self.trials.append(trial)
            self.numbers.add(trial.trial_no)
            if trial.measured_cost is not None and trial.predicted_cost > 0:
                self.drift = max(self.drift, trial.measured_cost / trial.predicted_cost)
        return searched

    def _view(self, searched: Sequence[TrialRecord]) -> None:
        scored = [trial for trial in searched if trial.score is not None]
        for trial in scored:
            self._place[trial.trial_no] = len(self.views)
            self._open.pop(trial.trial_no, None)
            view = trial_view(trial, {}, self._proposal_of(trial.trial_no))
            self.views.append(view if self._feasible(trial) else replace(view, feasible=False))
        if scored:
            self._give_curves()

    def _proposal_of(self, number: int) -> ProposalRecord | None:
        return self.accepted[number - 1] if number <= len(self.accepted) else None

    def _give_curves(self) -> None:
        """Curves to the best and the newest trials, and to no others."""
        # The best of all are among the best so far and the new.
        among = [self.views[self._place[n]] for n in self._best] + self.views[self._ranked :]
        best = heapq.nlargest(CURVES_OF, among, key=lambda view: (view.score, -view.cost, -view.trial_no))
        self._best, self._ranked = [view.trial_no for view in best], len(self.views)
        wanted = {view.trial_no for view in (*best, *self.views[-CURVES_OF:])}
        curves = self._archive.trials.curves(self._study_id, sorted(wanted - self._with_curves))
        for number in self._with_curves - wanted:
            place = self._place[number]
            self.views[place] = replace(self.views[place], curves={})
        for number, of_trial in curves.items():
            place = self._place[number]
            self.views[place] = replace(self.views[place], curves=estimates(of_trial))
        self._with_curves = wanted

    # Proposals ---------------------------------------------------------------------------------------------------

    def _read_proposals(self) -> bool:
        """Whether the proposals among what is new come after those held, as their numbers and order demand."""
        newest = max(self.by_round, default=None)
        in_order = True
        for proposal in self._archive.proposals.list(self._study_id, since=newest, prompts=False):
            key = (proposal.round, proposal.attempt, proposal.position)
            if key in self._known:
                continue
            if proposal.origin != CALL:
                in_order &= self._newest is None or key > self._newest
                self._newest = key
            self._known.add(key)
            self._add(proposal)
        return in_order

    def _add(self, proposal: ProposalRecord) -> None:
        if proposal.origin == CALL:
            proposal = replace(proposal, reply=None)
        if proposal.llm_model is not None:
            calls, proposing = self._calls.setdefault(proposal.round, {}), proposal.attempt >= 0
            calls[proposing] = calls.get(proposing, False) or proposal.verdict == "accepted"
        self.by_round.setdefault(proposal.round, []).append(proposal)
        if proposal.verdict == "accepted" and proposal.allocation is not None:
            self.accepted.append(proposal)
            number = len(self.accepted)
            self.accepted_by_round.setdefault(proposal.round, []).append(number)
            self.taken.add(proposal.allocation)
            if number in self._place:
                place = self._place[number]
                self.views[place] = replace(self.views[place], **_source(proposal))
            else:
                self._open[number] = proposal
        elif proposal.verdict == "refused" and proposal.origin != CALL:
            self.refused_count += 1
            raw = (proposal.reply or "")[:500]
            self.refused.append(RefusedView(proposal.round, proposal.allocation, raw, proposal.verdict_reason))


def estimates(curves: Curves) -> dict[str, tuple[CurveEstimate, ...]]:
    """Curves as a proposer sees them: points with a score."""
    return {
        stage: tuple(CurveEstimate(p.k, p.score, p.coverage) for p in points if p.score is not None)
        for stage, points in curves.items()
    }


def trial_view(trial: TrialRecord, curves: Curves, proposal: ProposalRecord | None = None) -> TrialView:
    """A trial with a score as a proposer sees it, and the proposal it came from where that is known."""
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
        estimates(curves),
        trial.stage_scores,
        stopped=trial.stopped,
        **({} if proposal is None else _source(proposal)),
    )


def _source(proposal: ProposalRecord) -> dict[str, Any]:
    return {"origin": proposal.origin, "expected_score": proposal.expected_score}
