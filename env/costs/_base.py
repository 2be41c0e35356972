"""The contract of cost models: what a stage used and what its model is -> cost in a stated unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from env.errors import ApportionError
from env.spec.architecture import Architecture, Price, Quantisation
from env.spec.study import PlanBudget, Precision


@dataclass(frozen=True)
class StageTokens:
    """What one stage of one query uses."""

    prompt: float
    """Tokens of one prompt."""

    output: float
    """Tokens of one sample, mean over the samples."""

    samples: int
    """Drawn from each prompt; 0 where a model only reads, as a verifier does."""

    prompts: int = 1
    """Different prompts of that length; more than one where a verifier reads several candidates."""

    def prefills(self, shared: bool) -> int:
        """How often a prompt is processed: once, or once for each sample where nothing is shared."""
        return self.prompts * (1 if shared else max(1, self.samples))


@dataclass(frozen=True)
class ModelProfile:
    """What the cost models know of a model."""

    name: str
    active: float
    """Parameters a token goes through (embeddings counted)."""

    total: float
    """Parameters that are kept in memory."""

    architecture: Architecture | None = None
    quantisation: Quantisation = field(default_factory=Quantisation)
    price: Price | None = None


@dataclass(frozen=True)
class CostOptions:
    """How the models are taken to be served; a plan budget states it field by field, see there."""

    prompt_shared: bool = True
    accelerator: str | None = None
    precision: Precision | None = None
    tensor_parallel: int | None = None
    batch_size: int | None = None
    intensity: float | None = None
    prices: str | None = None
    power_fraction: float = 1.0
    pue: float = 1.0
    calibration: float | None = None

    @classmethod
    def of(cls, plan: PlanBudget) -> CostOptions:
        """The options of a plan budget."""
        return cls(**plan.model_dump(exclude={"limit", "unit"}))


@dataclass(frozen=True)
class Lack:
    """Something a cost model needs and does not have."""

    subject: Literal["plan", "model"]
    """Whose field is missing: the plan budget's or the model's."""

    field: str
    message: str
    """What to add."""


class CostDataError(ApportionError):
    """A cost model lacks a number it needs; the message says what to add."""


class CostModel(Protocol):
    """Cost of one stage of one query. Pure.

    Non-decreasing in the number of samples and in prompt and output tokens, and linear in the number of samples from
    one sample on (AgentTTS: above its floor at 0), which the agent's prompt relies on.
    """

    @property
    def unit(self) -> str:
        """The unit, as people write it."""
        ...

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """What is missing to price this model; empty where `stage_cost` can be asked."""
        ...

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """Cost of a stage run by that model.

        Raises:
            CostDataError: `lacks` is not empty.
        """
        ...


def refuse_lacks(unit: str, model: ModelProfile, lacks: list[Lack]) -> None:
    """Raise what `stage_cost` promises.

    Raises:
        CostDataError: there is a lack.
    """
    if lacks:
        wanted = "; ".join(f"{lack.field}: {lack.message}" for lack in lacks)
        raise CostDataError(f"{model.name} cannot be priced in {unit}: {wanted}")
