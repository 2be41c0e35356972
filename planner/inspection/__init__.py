"""Shows again what a trial did on one example: prompts, draws, votes and gold, out of evidence, bank and data."""

from planner.inspection.examples import known_examples
from planner.inspection.inspected import InspectedDraw, InspectedExample, InspectedPrompt, InspectedStage
from planner.inspection.inspecting import inspect_example

__all__ = [
    "InspectedDraw",
    "InspectedExample",
    "InspectedPrompt",
    "InspectedStage",
    "inspect_example",
    "known_examples",
]
