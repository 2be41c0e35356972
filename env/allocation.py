"""Allocations: for every stage its model, strategy and number of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from env.errors import ApportionError

KnobValue = int | float | str
"""What a knob may be set to; truth values are written as 0 and 1."""


@dataclass(frozen=True, order=True)
class StageSetting:
    """What one stage spends on a query."""

    model: str
    strategy: str
    samples: int
    knobs: tuple[tuple[str, KnobValue], ...] = ()
    """Other dimensions the stage opens, by name, sorted; empty where it opens none."""

    def __str__(self) -> str:
        name = f"{self.model}/{self.strategy}/{self.samples}"
        return f"{name}[{','.join(f'{knob}={value}' for knob, value in self.knobs)}]" if self.knobs else name

    def knob(self, name: str) -> KnobValue | None:
        """The value of a knob, None where it is not set."""
        return dict(self.knobs).get(name)

    def with_samples(self, samples: int) -> StageSetting:
        """The same setting with another number of samples."""
        return StageSetting(self.model, self.strategy, samples, self.knobs)


@dataclass(frozen=True, order=True)
class Allocation:
    """One point of the search space: a setting for each stage, in pipeline order."""

    settings: tuple[tuple[str, StageSetting], ...]

    def __hash__(self) -> int:
        """Computed once: a long search looks the same allocations up thousands of times."""
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash(self.settings)
            object.__setattr__(self, "_hash", known)
        return int(known)

    def __getstate__(self) -> dict[str, object]:
        """Without the hash, which another process computes otherwise."""
        return {"settings": self.settings}

    @classmethod
    def of(cls, settings: Mapping[str, StageSetting]) -> Allocation:
        """Build from a mapping in pipeline order."""
        return cls(tuple(settings.items()))

    @classmethod
    def from_json(cls, value: object) -> Allocation:
        """Read ``{stage: {model, strategy, samples, knobs}}``; knobs may be left out.

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
            settings[str(stage)] = StageSetting(model, strategy, samples, _knobs(stage, raw.get("knobs")))
        return cls.of(settings)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """``{stage: {model, strategy, samples}}``, and ``knobs`` where there are any; the inverse of `from_json`."""
        return {
            stage: {"model": s.model, "strategy": s.strategy, "samples": s.samples}
            | ({"knobs": dict(s.knobs)} if s.knobs else {})
            for stage, s in self.settings
        }

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


def _knobs(stage: object, raw: object) -> tuple[tuple[str, KnobValue], ...]:
    if raw is None:
        return ()
    if not isinstance(raw, Mapping):
        raise ApportionError(f"{stage}: knobs must be an object of names and values")
    # A strict reply schema has no optional fields: a knob left out comes as null.
    given = {name: value for name, value in raw.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ApportionError(f"{stage}: knob {name!r} must be a number or a text")
    return tuple(sorted((str(name), value) for name, value in given.items()))
