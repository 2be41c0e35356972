"""Single stages of the task as pipelines with gold inputs, to look at what a strategy does on real models."""

from __future__ import annotations

from typing import Any

from env.embedded.ledger import ledger_examples
from env.embedded.prompts import CRITIC_PROMPTS
from env.spec import PipelineSpec
from env.tasks.example import Example

CRITIC = {
    kind: [{"role": "system", "template": name}, {"role": "user", "template": CRITIC_PROMPTS[name]}]
    for kind, name in (("fuse", "fuse"), ("revise", "revise"), ("verify", "judge"))
}


def solve_pipeline(strategies: list[str], temperature: float = 1.5, **changes: Any) -> PipelineSpec:
    """Stage solve alone: an expression is worked out. A step ends with a semicolon."""
    stage: dict[str, Any] = {
        "name": "solve",
        "prompt": [{"role": "system", "template": "solve"}, {"role": "user", "template": "{{ expression }}"}],
        "parser": {"kind": "after", "marker": "=", "join": True},
        "models": ["s", "l"],
        "strategies": strategies,
        "samples": {"min": 1, "max": 64},
        "tokens": {"prompt": 22, "output": 43},
        "temperature": temperature,
        "max_tokens": 112,
        "step_end": ";",
        "verifier": "verifier",
        "critic": "critic",
        "prompts": CRITIC,
        **changes,
    }
    return _pipeline(stage)


def retrieve_pipeline(strategies: list[str], temperature: float = 1.0) -> PipelineSpec:
    """Stage retrieve alone, scored by naming exactly the right sentences."""
    story = "{% for sentence in story %}#{{ loop.index }} {{ sentence }} {% endfor %}ask {{ person }}"
    return _pipeline(
        {
            "name": "retrieve",
            "prompt": [{"role": "system", "template": "retrieve"}, {"role": "user", "template": story}],
            "parser": {"kind": "ids", "prefix": "#"},
            "models": ["m", "l"],
            "strategies": strategies,
            "samples": {"min": 1, "max": 64},
            "tokens": {"prompt": 74, "output": 10},
            "temperature": temperature,
            "max_tokens": 24,
        }
    )


def solve_examples(count: int, split: str = "search") -> list[Example]:
    """Gold expressions and their values."""
    found = []
    for example in ledger_examples(split, count, seed=0, difficulty="mixed"):
        found.append(Example(example.id, {"expression": example.stage_gold["read"]}, example.answers))
    return found


def retrieve_examples(count: int, split: str = "search") -> list[Example]:
    """Stories, and the numbers of the sentences that concern the person asked about."""
    found = []
    for example in ledger_examples(split, count, seed=0, difficulty="mixed"):
        gold = example.stage_gold["retrieve"]
        assert isinstance(gold, list | tuple)
        found.append(Example(example.id, example.fields, (" ".join(map(str, gold)),)))
    return found


def _pipeline(stage: dict[str, Any]) -> PipelineSpec:
    names = ("s", "m", "l", "verifier", "critic")
    return PipelineSpec.model_validate(
        {
            "name": stage["name"],
            "models": {name: {"backend": "torch", "checkpoint": f"embedded:{name}"} for name in names},
            "stages": [stage],
        }
    )
