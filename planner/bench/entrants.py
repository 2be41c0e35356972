"""Who takes part in a rehearsal: any proposer by its kind, perhaps with parts of the method left out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from env.errors import ApportionError
from planner.bench.problem import EVERYTHING, Conditions, Problem
from planner.proposers import Ablation, InsightProposer, Proposer, RandomProposer

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

    Raises:
        ApportionError: no such kind or part.
    """
    kind, ablation = parsed(name)
    conditions = Conditions(bank=not ablation.without_bank, racing=not ablation.without_racing)
    proposer: Proposer
    if kind == "insight":
        proposer = InsightProposer(problem.space, seed, batch, ablation=ablation)
    elif kind == "random":
        proposer = RandomProposer(problem.space, seed, batch)
    else:
        raise ApportionError(f"no proposer {kind!r}")
    try:
        yield Entrant(proposer, conditions)
    finally:
        await proposer.close()
