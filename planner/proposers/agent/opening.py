"""Makes the agent that a study asks for, with its safety net."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from env.errors import ApportionError
from env.spec import StudySpec
from planner.proposers.ablation import Ablation
from planner.proposers.agent.accounts import Accounts
from planner.proposers.agent.agent import AgentProposer
from planner.proposers.agent.settings import resolve_llm
from planner.proposers.insight import InsightProposer
from planner.space import SearchSpace


def open_agent(
    spec: StudySpec,
    space: SearchSpace,
    environ: Mapping[str, str],
    tokens_left: Callable[[], int] | None = None,
    accounts: Accounts | None = None,
) -> AgentProposer | None:
    """The agent of a study of kind ``auto`` or ``agent``, with the insight policy beside it; None without an LLM.

    Args:
        spec: the study.
        space: its search space.
        environ: where to look for the LLM.
        tokens_left: what the proposer may still use, where there are no accounts.
        accounts: its budget and memory in the archive.

    Raises:
        ApportionError: the agent is asked for by name and no LLM is configured, or its settings are wrong.
    """
    llm = resolve_llm(spec.proposer, environ)
    if llm is None:
        if spec.proposer.kind == "agent":
            raise ApportionError(
                "proposer.kind is agent but no LLM is configured: set proposer.model (and base_url, api_key_env) or "
                "APPORTION_LLM_MODEL, APPORTION_LLM_BASE_URL and OPENAI_API_KEY"
            )
        return None
    ablation = Ablation.of(spec.proposer.ablate)
    return AgentProposer(
        space,
        llm,
        spec.description,
        spec.seed,
        tokens_left,
        policy=InsightProposer(space, spec.seed, spec.proposer.batch, ablation=ablation),
        accounts=accounts,
        ablation=ablation,
    )
