"""Who takes part in a rehearsal: any proposer by its kind, perhaps with parts of the method left out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from env.spec.study import ProposerSpec
from planner.bench.problem import EVERYTHING, Conditions, Problem
from planner.proposers import Ablation, InsightProposer, Proposer, ProposerSetup, open_proposer
from planner.proposers.agent import resolve_llm
from planner.proposers.registry import may_ask_llm

WITHOUT = "-without-"
"""Between a kind and the parts it does without, joined by ``+``: ``insight-without-insight1+bank``."""


@dataclass(frozen=True)
class Entrant:
    """One proposer, opened for one search."""

    proposer: Proposer
    conditions: Conditions = EVERYTHING
    fill: Proposer | None = None
    """Fills rounds it could not; chance where None, so that a rival is not helped by the insight policy."""


def parsed(name: str) -> tuple[str, Ablation]:
    """Kind and what is left out.

    Raises:
        ApportionError: a part is unknown.
    """
    kind, _, parts = name.partition(WITHOUT)
    return kind, Ablation.of(parts.split("+")) if parts else Ablation()


@asynccontextmanager
async def open_entrant(name: str, problem: Problem, seed: int, batch: int) -> AsyncIterator[Entrant]:
    """Open an entrant for one search, and close it.

    An LLM, for entrants that need one, is the one that the environment names, as for a study.

    Raises:
        ApportionError: no such kind or part, or no LLM for one that needs it.
    """
    kind, ablation = parsed(name)
    llm = resolve_llm(ProposerSpec(), os.environ) if may_ask_llm(kind) else None
    setup = ProposerSetup(problem.space, seed, batch, problem.description, llm, ablation=ablation)
    proposer = open_proposer(kind, setup)
    fill = InsightProposer(problem.space, seed, batch, ablation=ablation) if proposer.kind == "agent" else None
    try:
        conditions = Conditions(bank=not ablation.without_bank, racing=not ablation.without_racing)
        yield Entrant(proposer, conditions, fill)
    finally:
        await proposer.close()
