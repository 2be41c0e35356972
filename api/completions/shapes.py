"""What the plan endpoint answers, in OpenAI's shapes, with what only plans know beside it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

from api.completions.answering import Answered
from api.completions.targets import Target
from env.execution import StageAnswer

Json = dict[str, Any]


class ReplyShape:
    """Builds the objects of one reply."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._seed = seed
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def completion(self, answered: Answered) -> Json:
        """The whole reply."""
        message = {"role": "assistant", "content": answered.content}
        choice = {"index": 0, "message": message, "finish_reason": answered.finish_reason, "logprobs": None}
        return self._envelope("chat.completion", [choice]) | {
            "usage": usage(answered),
            "apportion": self._extension(answered),
        }

    def beginning(self) -> Json:
        """The first chunk of a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> Json:
        """A chunk with text."""
        return self._chunk({"content": text})

    def ending(self, answered: Answered) -> Json:
        """The chunk that says how it ended, and what it took."""
        return self._chunk({}, answered.finish_reason) | {"apportion": self._extension(answered)}

    def usage_chunk(self, answered: Answered) -> Json:
        """The last chunk of a stream that asked for usage."""
        return self._envelope("chat.completion.chunk", []) | {"usage": usage(answered)}

    def _chunk(self, delta: Mapping[str, str], finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": dict(delta), "finish_reason": finish, "logprobs": None}
        return self._envelope("chat.completion.chunk", [choice])

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._target.model,
            "choices": choices,
        }

    def _extension(self, answered: Answered) -> Json:
        live, target = answered.live, self._target
        opened = answered.opened.live
        predicted = target.point.predicted_cost
        if target.stage is not None:
            predicted = opened.stage_cost(target.stage, target.allocation[target.stage])
        return {
            "plan": target.record.id,
            "study": answered.opened.study,
            "trial": target.point.trial_no,
            "answered": live.last.answer is not None,
            "answer": live.last.answer,
            "unit": opened.unit,
            "cost": live.cost,
            "predicted_cost": predicted,
            "seconds": round(live.seconds, 6),
            "seed": self._seed,
            "ignored": list(answered.ignored),
            "changed_models": list(answered.opened.changed),
            "stages": [_stage(stage) for stage in live.stages],
        }


def usage(answered: Answered) -> Json:
    """Tokens of all stages, verifiers and critics included."""
    read = sum(stage.prompt_tokens for stage in answered.live.stages)
    written = sum(stage.output_tokens for stage in answered.live.stages)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _stage(stage: StageAnswer) -> Json:
    return {
        "stage": stage.stage,
        "model": stage.setting.model,
        "strategy": stage.setting.strategy,
        "samples": stage.setting.samples,
        "draws": stage.draws,
        "prompt_tokens": stage.prompt_tokens,
        "completion_tokens": stage.output_tokens,
        "cost": stage.cost,
        "seconds": round(stage.seconds, 6),
        "answer": stage.answer,
    }
