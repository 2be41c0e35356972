"""What is shown of a trial on one example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from env.allocation import StageSetting
from env.backends._base import FinishReason, Message
from env.tasks.example import JsonValue


@dataclass(frozen=True)
class InspectedDraw:
    """One draw of a prompt."""

    index: int
    text: str | None
    """None where the archive's text policy dropped it."""

    answer: str | None
    """Canonical JSON of what the stage's parser reads in it; None where it reads nothing or that is not known."""

    answer_known: bool
    """False where the text is gone and no answer was kept, or the draw is no reply of the stage itself."""

    finish: FinishReason
    prompt_tokens: int
    output_tokens: int
    logprob: float | None
    score: float | None
    """The verifier's, where it was asked about this reply and the score can be found."""

    asked: bool | None
    """Whether the trial's own samples include it; None where the strategy decides as it goes and that is not kept.
    Draws that other trials asked of the same prompt are held with them and count in the score's expectation."""

    chosen: bool
    """Whether its answer is the one that the stage delivered."""

    origin: str
    """Study and batch that asked for it first."""


@dataclass(frozen=True)
class InspectedPrompt:
    """One prompt and the draws that the bank holds of it."""

    key: str
    role: Literal["stage", "other"]
    """``stage``: the stage's own prompt; ``other``: a critic's, a continued answer, another model's."""

    model: str
    """As the bank knows it; empty where the draws are gone."""

    revision: str
    held: int
    """Draws in the bank now; more than the trial knew where others drew since."""

    draws: tuple[InspectedDraw, ...]
    """The first of them; `held` says how many there are."""

    missing: str = ""
    """Why no draw can be shown; empty where some are."""


@dataclass(frozen=True)
class InspectedStage:
    """What one stage did on the example."""

    stage: str
    setting: StageSetting | None
    answer: str | None
    gold: tuple[str, ...]
    """What it should have answered, where the data says so."""

    score: float | None
    samples: int
    held: int
    """Draws that the trial's score rests on, as it was recorded."""

    messages: tuple[Message, ...] | None
    """The rendered prompt; None where it cannot be rebuilt, see `messages_note`."""

    messages_note: str
    prompts: tuple[InspectedPrompt, ...]
    votes: Mapping[str | None, int]
    """Answers of the draws that the trial asked for, most frequent first; None is "no answer". Empty: not known."""


@dataclass(frozen=True)
class InspectedExample:
    """A trial on one example."""

    example_id: str
    status: Literal["scored", "failed"]
    reason: str
    score: float | None
    realised: float | None
    cost: float
    fields: Mapping[str, JsonValue] | None
    """What prompts could name; None where the data can no longer be read, see `data_note`."""

    gold: tuple[str, ...]
    data_note: str
    stages: tuple[InspectedStage, ...]
