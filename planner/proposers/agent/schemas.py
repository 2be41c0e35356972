"""The JSON schemas of the two replies, in the subset that strict structured output takes everywhere."""

from __future__ import annotations

from planner.proposers.ablation import NOTHING, Ablation
from planner.proposers.agent.dialect import ReplyForm
from planner.space import SearchSpace

GUIDELINES = "guidelines"
PROPOSALS = "proposals"

MAX_LISTED_CHOICES = 64


def proposals_form(space: SearchSpace) -> ReplyForm:
    """``{proposals: [{allocation: {stage: {model, strategy, samples, knobs}}, reason, expected_score}]}``."""
    item = _object(
        {
            "allocation": allocation_schema(space),
            "reason": {"type": "string"},
            "expected_score": {"type": ["number", "null"]},
        }
    )
    return ReplyForm(PROPOSALS, _object({PROPOSALS: {"type": "array", "items": item}}))


def allocation_schema(space: SearchSpace) -> dict[str, object]:
    """``{stage: {model, strategy, samples, knobs}}`` with the names that exist."""
    stages: dict[str, object] = {}
    for stage in space.pipeline.stages:
        samples: dict[str, object] = {"type": "integer"}
        allowed = stage.samples.values()
        if len(allowed) <= MAX_LISTED_CHOICES:
            samples["enum"] = list(allowed)
        setting: dict[str, object] = {
            "model": {"type": "string", "enum": list(stage.models)},
            "strategy": {"type": "string", "enum": list(stage.strategies)},
            "samples": samples,
        }
        if stage.knobs:
            # Strict schemas know no optional fields: a knob that means nothing to the strategy is null.
            setting["knobs"] = _object({name: {"enum": [*choices, None]} for name, choices in stage.knobs.items()})
        stages[stage.name] = _object(setting)
    return _object(stages)


def guidelines_form(space: SearchSpace, ablation: Ablation = NOTHING) -> ReplyForm:
    """``{guidelines: [{insight, stage, text, structured}]}``; what a guideline leaves open is null.

    Guidelines of an insight that is left out have no place in it.
    """
    stage = {"type": ["string", "null"], "enum": [*(s.name for s in space.pipeline.stages), None]}
    models = sorted({model for s in space.pipeline.stages for model in s.models})
    structured = _object(
        {
            "preferred_model": {"type": ["string", "null"], "enum": [*models, None]},
            "direction": {"type": ["string", "null"], "enum": ["up", "down", "hold", None]},
            "plateau": {"type": ["integer", "null"]},
            "shift_budget_from": stage,
            "shift_budget_to": stage,
        }
    )
    item = _object(
        {
            "insight": {"type": "integer", "enum": [i for i in (0, 1, 2, 3) if ablation.keeps(i)]},
            "stage": stage,
            "text": {"type": "string"},
            "structured": structured,
        }
    )
    return ReplyForm(GUIDELINES, _object({GUIDELINES: {"type": "array", "items": item}}))


def _object(properties: dict[str, object]) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
