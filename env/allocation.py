"""Allocations: for every stage its model, strategy and number of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from env.errors import ApportionError


@dataclass(frozen=True, order=True)
class StageSetting:
    """What one stage spends on a query."""

    model: str
    strategy: str
    samples: int

    def __str__(self) -> str:
        return f"{self.model}/{self.strategy}/{self.samples}"


@dataclass(frozen=True, order=True)
class Allocation:
    """One point of the search space: a setting for each stage, in pipeline order."""

    settings: tuple[tuple[str, StageSetting], ...]

    @classmethod
    def of(cls, settings: Mapping[str, StageSetting]) -> Allocation:
        """Build from a mapping in pipeline order."""
        return cls(tuple(settings.items()))

    @classmethod
    def from_json(cls, value: object) -> Allocation:
        """Read ``{stage: {model, strategy, samples}}``.

        Raises:
            ApportionError: the value has another shape; the message names the place.
        """
        if not isinstance(value, Mapping) or not value:
            raise ApportionError("an allocation is an object of stages, each {model, strategy, samples}")
        settings: dict[str, StageSetting] = {}
        for stage, raw in value.items():
            if not isinstance(raw, Mapping):
                raise ApportionError(f"{stage}: expected an object {{model, strategy, samples}}")
            model, strategy, samples = raw.get("model"), raw.get("strategy"), raw.get("samples")
            if not isinstance(model, str) or not isinstance(strategy, str):
                raise ApportionError(f"{stage}: model and strategy must be strings")
            if not isinstance(samples, int) or isinstance(samples, bool):
                raise ApportionError(f"{stage}: samples must be a whole number")
            settings[str(stage)] = StageSetting(model, strategy, samples)
        return cls.of(settings)

    def to_json(self) -> dict[str, dict[str, str | int]]:
        """``{stage: {model, strategy, samples}}``; the inverse of `from_json`."""
        return {stage: {"model": s.model, "strategy": s.strategy, "samples": s.samples} for stage, s in self.settings}

    def __getitem__(self, stage: str) -> StageSetting:
        for name, setting in self.settings:
            if name == stage:
                return setting
        raise KeyError(stage)

    def replace(self, stage: str, setting: StageSetting) -> Allocation:
        """The same allocation with one stage's setting changed."""
        return Allocation(tuple((name, setting if name == stage else old) for name, old in self.settings))

    @property
    def stages(self) -> tuple[str, ...]:
        """Stage names in pipeline order."""
        return tuple(name for name, _ in self.settings)

    def __str__(self) -> str:
        return " ".join(f"{stage}={setting}" for stage, setting in self.settings)
