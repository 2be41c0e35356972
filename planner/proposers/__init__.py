"""Suggests allocations: the LLM agent, the insight policy and chance, behind one interface."""

from planner.proposers._base import Exchange, Proposal, Proposer, Reflection, Suggestions, ToolCall
from planner.proposers.ablation import Ablation
from planner.proposers.insight import InsightProposer
from planner.proposers.random_proposer import RandomProposer

__all__ = [
    "Ablation",
    "Exchange",
    "InsightProposer",
    "Proposal",
    "Proposer",
    "RandomProposer",
    "Reflection",
    "Suggestions",
    "ToolCall",
]
