"""What a stage is: its prompt and parser, and the settings the search may choose for it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from env.spec.strict import Strict

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
ModelName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}(@[A-Za-z0-9_.-]{1,64})?$")]
"""A name, perhaps of a variant (``small@fp8``)."""

StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
KnobName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31})?$")]
KnobChoices = Annotated[tuple[int | float | str, ...], Field(min_length=1, max_length=64)]
StrategyName = Literal[
    "vote",
    "weighted_vote",
    "best_of_n",
    "likeliest",
    "union",
    "top_ids",
    "fuse",
    "revise",
    "verify",
    "beam",
    "dvts",
    "rebase",
    "qalign",
    "asc",
    "esc",
    "trend",
    "cascade",
    "by_difficulty",
]
PromptKind = Literal["fuse", "revise", "verify"]


class PromptMessage(Strict):
    """One message of a stage's prompt."""

    role: Literal["system", "user", "assistant"]
    template: str = Field(
        description="Sandboxed Jinja2; may name fields of the example and earlier stages (their parsed answers)."
    )


class TextParser(Strict):
    """The whole output, white space collapsed."""

    kind: Literal["text"] = "text"


class AfterParser(Strict):
    """What follows the last occurrence of a marker; no marker, no answer."""

    kind: Literal["after"]
    marker: str = Field(min_length=1)
    join: bool = Field(False, description="Remove all white space inside the answer (digits written apart).")


class IdsParser(Strict):
    """A set of whole numbers, each written behind a prefix; the answer is the sorted list."""

    kind: Literal["ids"]
    prefix: str = "#"


class RegexParser(Strict):
    """The last match of a regular expression (its first group where it has one)."""

    kind: Literal["regex"]
    pattern: str = Field(min_length=1, max_length=500)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class JsonParser(Strict):
    """A JSON value in the output (the first that parses), or one field of it."""

    kind: Literal["json"]
    field: str | None = None


ParserSpec = Annotated[
    TextParser | AfterParser | IdsParser | RegexParser | JsonParser,
    Field(discriminator="kind"),
]


class SamplesSpec(Strict):
    """How many samples a stage may draw."""

    min: int = Field(1, ge=1, le=1000)
    max: int = Field(1, ge=1, le=1000)
    choices: tuple[int, ...] | None = Field(None, description="Only these numbers; each within min..max.")

    @model_validator(mode="after")
    def _ordered(self) -> SamplesSpec:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        outside = [k for k in self.choices or () if not self.min <= k <= self.max]
        if outside:
            raise ValueError(f"choices {outside} lie outside {self.min}..{self.max}")
        return self

    def values(self) -> tuple[int, ...]:
        """Every allowed number of samples, ascending."""
        return tuple(sorted(set(self.choices))) if self.choices else tuple(range(self.min, self.max + 1))


class PlannedTokens(Strict):
    """Tokens the cost model plans for one query of the stage."""

    prompt: int = Field(ge=1, le=10_000_000)
    output: int = Field(ge=1, le=10_000_000)
    per: dict[KnobName, float] = Field(
        default_factory=dict,
        description="Further prompt tokens for each unit of a knob, such as 120 for every document.",
    )


class StageSpec(Strict):
    """One LLM step."""

    name: StageName
    prompt: tuple[PromptMessage, ...] = Field(min_length=1)
    parser: ParserSpec = TextParser()
    models: tuple[ModelName, ...] = Field(min_length=1, description="Candidate models, by the names under `models`.")
    strategies: tuple[StrategyName, ...] = Field(("vote",), min_length=1)
    samples: SamplesSpec = SamplesSpec()
    knobs: dict[KnobName, KnobChoices] = Field(
        default_factory=dict,
        description=(
            "Other dimensions of the search and their choices: temperature, top_p and max_tokens of the stage; a "
            "strategy's own, such as beam.width; any other name is a variable of the prompt, such as documents."
        ),
    )
    tokens: PlannedTokens
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1, le=1_000_000)
    stop: tuple[str, ...] = ()
    step_end: str | None = Field(
        None, min_length=1, description="What ends a step of the output; strategies that search step by step need it."
    )
    verifier: ModelName | None = Field(None, description="The model that scores candidates; best_of_n needs one.")
    critic: ModelName | None = Field(
        None, description="The model that fuses, revises and verifies; the stage's own where not given."
    )
    prompts: dict[PromptKind, tuple[PromptMessage, ...]] = Field(
        default_factory=dict,
        description=(
            "Prompts of the critic in place of the built-in ones. Besides the prompt's variables they may name "
            "`prompt` (the stage's last message), `attempt` (a reply) and `attempts` (a list of replies)."
        ),
    )
