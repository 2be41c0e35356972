"""Lets an LLM write the guidelines and propose the allocations, over any OpenAI-compatible server."""

from planner.proposers.agent.agent import AgentProposer
from planner.proposers.agent.settings import LlmSettings, resolve_llm

__all__ = ["AgentProposer", "LlmSettings", "resolve_llm"]
