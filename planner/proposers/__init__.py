"""Suggests allocations: the LLM agent, the insight policy, their rivals and others' own, behind one interface."""

from planner.proposers._base import Exchange, Proposal, Proposer, Reflection, Suggestions, ToolCall
from planner.proposers.ablation import Ablation
from planner.proposers.insight import InsightProposer
from planner.proposers.random_proposer import RandomProposer
from planner.proposers.registry import ProposerSetup, open_proposer, proposer_kinds

__all__ = [
    "Ablation",
    "Exchange",
    "InsightProposer",
    "Proposal",
    "Proposer",
    "ProposerSetup",
    "RandomProposer",
    "Reflection",
    "Suggestions",
    "ToolCall",
    "open_proposer",
    "proposer_kinds",
]
