"""Who takes part in a rehearsal: any proposer by its kind, perhaps with parts of the method left out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from env.spec.study import ProposerSpec
from planner.bench.problem import EVERYTHING, Conditions, Problem
from planner.bench.scripted import scripted_llm
from planner.proposers import Ablation, InsightProposer, Proposer, ProposerSetup, open_proposer
from planner.proposers.agent import LlmSettings, resolve_llm
from planner.proposers.registry import may_ask_llm

WITHOUT = "-without-"
"""Between a kind and the parts it does without, joined by ``+``: ``insight-without-insight1+bank``."""

SCRIPT = "@"
"""Between a kind and the script that plays its LLM: ``agent@hostile``."""


@dataclass(frozen=True)
class Entrant:
    """One proposer, opened for one search."""

    proposer: Proposer
    conditions: Conditions = EVERYTHING
    fill: Proposer | None = None
    """Fills rounds it could not; chance where None, so that a rival is not helped by the insight policy."""


def parsed(name: str) -> tuple[str, str, Ablation]:
    """Kind, the script that plays its LLM (empty: a real one), and what is left out.

    Raises:
        ApportionError: a part is unknown.
    """
    rest, _, parts = name.partition(WITHOUT)
    kind, _, script = rest.partition(SCRIPT)
    return kind, script, Ablation.of(parts.split("+")) if parts else Ablation()


@asynccontextmanager
async def open_entrant(name: str, problem: Problem, seed: int, batch: int) -> AsyncIterator[Entrant]:
    """Open an entrant for one search, and close it.

    An LLM, for entrants that need one, is a script where one is named, else the one that the environment names, as for
    a study.

    Raises:
        ApportionError: no such kind, script or part, or no LLM for one that needs it.
    """
    kind, script, ablation = parsed(name)
    with ExitStack() as opened:
        llm = None
        if script:
            # One round trip at a time on loopback; a failure is the script's and not worth asking twice.
            llm = LlmSettings("scripted", opened.enter_context(scripted_llm(script, problem, seed)), max_retries=0)
        elif may_ask_llm(kind):
            llm = resolve_llm(ProposerSpec(), os.environ)
        setup = ProposerSetup(problem.space, seed, batch, problem.description, llm, ablation=ablation)
        proposer = open_proposer(kind, setup)
        fill = InsightProposer(problem.space, seed, batch, ablation=ablation) if proposer.kind == "agent" else None
        try:
            conditions = Conditions(bank=not ablation.without_bank, racing=not ablation.without_racing)
            yield Entrant(proposer, conditions, fill)
        finally:
            await proposer.close()
