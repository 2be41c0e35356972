"""What a trial did on one example."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from api.schemas.base import Public
from planner.inspection import InspectedDraw, InspectedExample, InspectedPrompt, InspectedStage


class DrawPublic(Public):
    """One draw of a prompt."""

    index: int
    text: str | None = Field(description="Null where the archive's text policy dropped it.")
    answer: str | None = Field(description="Canonical JSON of what the stage's parser reads; null where it reads none.")
    answer_known: bool = Field(
        description="False where the text is gone and no answer was kept, or the draw is no reply of the stage itself."
    )
    finish: Literal["stop", "length", "score"]
    prompt_tokens: int
    output_tokens: int
    logprob: float | None
    score: float | None = Field(description="The verifier's; null where none was asked for or none can be found.")
    asked: bool | None = Field(
        description="Whether the trial's own samples include it; null where the strategy decides as it goes."
    )
    chosen: bool = Field(description="Its answer is the one that the stage delivered.")
    origin: str = Field(description="Study and batch that asked for it first.")


class PromptPublic(Public):
    """One prompt and its draws."""

    key: str = Field(description="Content key in the sample bank.")
    role: Literal["stage", "other"] = Field(description="`other`: a critic's, a continued answer, another model's.")
    model: str
    revision: str
    held: int = Field(description="Draws in the bank now; `draws` are the first of them.")
    draws: list[DrawPublic]
    missing: str = Field(description="Why there are none; empty where there are some.")


class MessagePublic(Public):
    """One message of a prompt."""

    role: str
    content: str


class VotePublic(Public):
    """How often an answer was given."""

    answer: str | None = Field(description="Null is no answer.")
    count: int


class StageInspectedPublic(Public):
    """What one stage did."""

    stage: str
    setting: dict[str, Any] | None = Field(description="Model, strategy, samples and knobs.")
    answer: str | None = Field(description="Canonical JSON of what the stage delivered.")
    gold: list[str] = Field(description="What it should have answered, where the data says so.")
    score: float | None
    samples: int
    held: int = Field(description="Draws that the trial's score rests on, as it was recorded.")
    messages: list[MessagePublic] | None = Field(description="The prompt, proven by its key to be the one asked.")
    messages_note: str = Field(description="Why the prompt cannot be shown; empty where it is.")
    prompts: list[PromptPublic]
    votes: list[VotePublic] = Field(description="Of the draws the trial asked for, most frequent first.")


class ExampleInspectedPublic(Public):
    """A trial on one example: every draw of every stage, the vote, the chosen answer and gold."""

    example_id: str
    status: Literal["scored", "failed"] = Field(description="`failed`: not evaluated; it is not a score of 0.")
    reason: str
    score: float | None
    realised: float | None = Field(description="Score of the answer that the allocated samples gave.")
    cost: float
    fields: dict[str, Any] | None = Field(description="Null where the data can no longer be read; see `data_note`.")
    gold: list[str]
    data_note: str
    stages: list[StageInspectedPublic]

    @classmethod
    def of(cls, found: InspectedExample) -> ExampleInspectedPublic:
        """From what was put together."""
        return cls(
            example_id=found.example_id,
            status=found.status,
            reason=found.reason,
            score=found.score,
            realised=found.realised,
            cost=found.cost,
            fields=dict(found.fields) if found.fields is not None else None,
            gold=list(found.gold),
            data_note=found.data_note,
            stages=[_stage(stage) for stage in found.stages],
        )


def _stage(stage: InspectedStage) -> StageInspectedPublic:
    s, messages = stage.setting, None
    setting: dict[str, Any] | None = None
    if s is not None:
        setting = {"model": s.model, "strategy": s.strategy, "samples": s.samples}
        setting |= {"knobs": dict(s.knobs)} if s.knobs else {}
    if stage.messages is not None:
        messages = [MessagePublic(role=m.role, content=_shown(m.content)) for m in stage.messages]
    return StageInspectedPublic(
        stage=stage.stage,
        setting=setting,
        answer=stage.answer,
        gold=list(stage.gold),
        score=stage.score,
        samples=stage.samples,
        held=stage.held,
        messages=messages,
        messages_note=stage.messages_note,
        prompts=[_prompt(prompt) for prompt in stage.prompts],
        votes=[VotePublic(answer=answer, count=count) for answer, count in stage.votes.items()],
    )


def _prompt(prompt: InspectedPrompt) -> PromptPublic:
    return PromptPublic(
        key=prompt.key,
        role=prompt.role,
        model=prompt.model,
        revision=prompt.revision,
        held=prompt.held,
        draws=[_draw(draw) for draw in prompt.draws],
        missing=prompt.missing,
    )


def _draw(draw: InspectedDraw) -> DrawPublic:
    return DrawPublic(
        index=draw.index,
        text=None if draw.text is None else _shown(draw.text),
        answer=None if draw.answer is None else _shown(draw.answer),
        answer_known=draw.answer_known,
        finish=draw.finish,
        prompt_tokens=draw.prompt_tokens,
        output_tokens=draw.output_tokens,
        logprob=draw.logprob,
        score=draw.score,
        asked=draw.asked,
        chosen=draw.chosen,
        origin=draw.origin,
    )


def _shown(text: str) -> str:
    """Models write half surrogate pairs too, which no UTF-8 has: they are shown as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
