"""What a pipeline is: its models, its stages and how an answer is scored."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
StageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
StrategyName = Literal["vote", "union", "best_of_n"]
MetricName = Literal["exact_match", "f1"]


class Strict(BaseModel):
    """Base of everything that crosses the border: unknown fields are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TorchModel(Strict):
    """A checkpoint in HF format served in process by the torch engine."""

    backend: Literal["torch"]
    checkpoint: str = Field(description="embedded:<name>, or a folder below the data root.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parameters: float | None = Field(
        None, gt=0, description="Active parameters for the cost model; read from the checkpoint where not given."
    )


class OpenAIModel(Strict):
    """A model behind any OpenAI-compatible server."""

    backend: Literal["openai"]
    base_url: str = Field(pattern=r"^https?://", description="For instance http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, description="The name the server knows it by.")
    revision: str = Field("", description="Stated revision of the weights; part of every draw's key.")
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds the key."
    )
    parameters: float = Field(gt=0, description="Active parameters, for the cost model.")
    timeout_s: float = Field(60.0, gt=0, le=3600)
    max_retries: int = Field(4, ge=0, le=20)
    concurrency: int = Field(32, ge=1, le=4096)


class FleetModel(Strict):
    """A model of the operator's fleet file (APPORTION_FLEET), whose server is started when a study needs it."""

    backend: Literal["fleet"]
    model: Name = Field(description="Its name in the fleet file.")
    revision: str = Field("", description="Stated revision of the weights; a local checkpoint's content by default.")
    parameters: float | None = Field(
        None, gt=0, description="Active parameters for the cost model; read from the checkpoint where not given."
    )
    timeout_s: float = Field(300.0, gt=0, le=3600)
    max_retries: int = Field(4, ge=0, le=20)
    concurrency: int = Field(64, ge=1, le=4096)


ModelSpec = Annotated[TorchModel | OpenAIModel | FleetModel, Field(discriminator="backend")]


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


class StageSpec(Strict):
    """One LLM step."""

    name: StageName
    prompt: tuple[PromptMessage, ...] = Field(min_length=1)
    parser: ParserSpec = TextParser()
    models: tuple[Name, ...] = Field(min_length=1, description="Candidate models, by the names under `models`.")
    strategies: tuple[StrategyName, ...] = Field(("vote",), min_length=1)
    samples: SamplesSpec = SamplesSpec()
    tokens: PlannedTokens
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1, le=1_000_000)
    stop: tuple[str, ...] = ()
    verifier: Name | None = Field(None, description="The model that scores candidates; best_of_n needs one.")


class PipelineSpec(Strict):
    """Ordered stages; each may read the example and any earlier stage."""

    name: Name
    models: dict[Name, ModelSpec] = Field(min_length=1)
    stages: tuple[StageSpec, ...] = Field(min_length=1)
    metric: MetricName = "exact_match"

    def stage(self, name: str) -> StageSpec:
        """The stage of that name.

        Raises:
            KeyError: there is none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)
