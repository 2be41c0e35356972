"""AgentHPO: one LLM role creates a configuration from a log of experiments, another writes the log in words."""

from __future__ import annotations

from collections.abc import Sequence

from planner.history import Guideline, History, RefusedView
from planner.proposers._base import Exchange, Proposal, Reflection, Suggestions
from planner.proposers.rivals.asking import LlmRival, refusals
from planner.proposers.rivals.wording import lines, short

LOG = "experiment log"


class AgentHpoProposer(LlmRival):
    """A creator and an analyst around the loop's execution, in the way of AgentHPO (arXiv 2402.01881).

    The creator reads the background (task, dimensions, costs) and the log of past experiments and proposes one
    configuration with its reason. The loop executes it. The analyst, which is the talking half of the paper's
    executor, writes what each new experiment showed into the log, which is kept as the study's guidelines.

    Differences: the paper's executor writes and runs training code, here the environment runs. The paper runs one
    configuration before it creates the next; a batch of n here asks the creator n times, with those not run yet listed
    as running. ``proposer.batch: 1`` is the paper's way.
    """

    kind = "agenthpo"
    role = (
        "You are a careful experimenter who tunes pipelines of LLM steps. You decide on one experiment at a time, from "
        "what the experiments before it showed, and you can say why."
    )

    async def reflect(self, history: History) -> Reflection:
        """The analyst's log entries for trials that have none."""
        written = {g.structured.get("trial") for g in self._log(history)}
        new = [t for t in history.trials if t.trial_no not in written]
        if not new:
            return Reflection(())
        numbers = ", ".join(str(t.trial_no) for t in new[-12:])
        return await self._ask_notes(
            "agenthpo_analyse.j2", history.trials, history.round, LOG, numbers=numbers, log=self._log_lines(history)
        )

    async def propose(self, history: History, count: int, refused: Sequence[RefusedView]) -> Suggestions:
        """See `Proposer.propose`; one call for each allocation, none after a call that failed."""
        if self._exhausted(history):
            return Suggestions(())
        proposals: list[Proposal] = []
        exchanges: list[Exchange] = []
        running = [short(p.allocation) for p in history.pending]
        for _ in range(count):
            found, exchange = await self._ask_proposals(
                "agenthpo_create.j2",
                history.trials,
                1,
                log=self._log_lines(history),
                running=lines(running),
                refusals=lines(refusals(refused)),
            )
            exchanges.append(exchange)
            if not found:
                break
            proposals += found
            running += [short(p.allocation) for p in found if p.allocation is not None]
        return Suggestions(tuple(proposals), tuple(exchanges))

    def _log(self, history: History) -> list[Guideline]:
        return [g for g in history.guidelines if g.structured.get("note") == LOG]

    def _log_lines(self, history: History) -> str:
        return lines({"trial": g.structured.get("trial"), "entry": g.text} for g in self._log(history)[-40:])
