"""Which parts of the method a study leaves out, so that what each is worth can be measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from env.errors import ApportionError

PARTS = {
    "insight1": "without_insight_1",
    "insight2": "without_insight_2",
    "insight3": "without_insight_3",
    "bank": "without_bank",
    "racing": "without_racing",
}
"""Names of the parts, and the switch of each."""


@dataclass(frozen=True)
class Ablation:
    """What is switched off; nothing by default."""

    without_insight_1: bool = False
    """No initial trials by model, no model preferences, nothing learned of what a stage's model is worth."""

    without_insight_2: bool = False
    """No k-curves, no plateaus, no gains that saturate."""

    without_insight_3: bool = False
    """No effects of stages on each other, no shifts of budget between them."""

    without_bank: bool = False
    """No reuse of draws between trials."""

    without_racing: bool = False
    """Every trial on all examples."""

    @classmethod
    def of(cls, parts: Iterable[str]) -> Ablation:
        """From the names of `PARTS`.

        Raises:
            ApportionError: a name is none of them.
        """
        named = list(parts)
        unknown = sorted(set(named) - PARTS.keys())
        if unknown:
            raise ApportionError(f"nothing called {', '.join(unknown)} can be left out; there are {', '.join(PARTS)}")
        return cls(**{PARTS[part]: True for part in named})

    def keeps(self, insight: int) -> bool:
        """Whether guidelines of this insight (1, 2, 3; 0 for any other) are written."""
        return not {1: self.without_insight_1, 2: self.without_insight_2, 3: self.without_insight_3}.get(insight, False)

    @property
    def parts(self) -> tuple[str, ...]:
        """What is left out, by the names of `PARTS`."""
        return tuple(part for part, switch in PARTS.items() if getattr(self, switch))


NOTHING = Ablation()
"""The whole method."""
