"""Runs a study: the LangGraph loop, its phases over the archive, and how a step is run."""

from planner.loop.context import StudyCancelled, StudyContext, StudyInterrupted, StudyPaused
from planner.loop.ending import drop_old_texts
from planner.loop.graph import build_graph, run_loop
from planner.loop.steps import InProcessSteps, Steps

__all__ = [
    "InProcessSteps",
    "Steps",
    "StudyCancelled",
    "StudyContext",
    "StudyInterrupted",
    "StudyPaused",
    "build_graph",
    "drop_old_texts",
    "run_loop",
]
