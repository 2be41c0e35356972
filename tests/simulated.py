"""A three-stage pipeline whose models are dice: exact probabilities, no weights, no network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from env.backends import Draw, DrawRequest, Failed, ModelIdentity, ScoreRequest, Settled
from env.spec import StudySpec

ACCURACY: Mapping[str, Mapping[str, float]] = {
    "find": {"small": 0.7, "large": 0.8},
    "read": {"small": 0.35, "large": 0.9},
    "solve": {"small": 0.6, "large": 0.7},
}
"""Probability that one draw is right, by stage and model."""

SCATTER: Mapping[str, int] = {"find": 40, "read": 1, "solve": 40}
"""Over how many answers wrong draws scatter: a vote cures scattered errors, not one that is always the same."""


def simulated_spec(**changes: Any) -> StudySpec:
    """A study on the dice: `small` has 1e9 parameters, `large` 8e9; a right answer is the example's number."""
    model = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "dice"}
    raw: dict[str, Any] = {
        "name": "dice",
        "pipeline": {
            "name": "dice",
            "models": {
                "small": {**model, "model": "small", "parameters": 1e9},
                "large": {**model, "model": "large", "parameters": 8e9},
                "judge": {**model, "model": "judge", "parameters": 1e8, "api": "classify"},
            },
            "stages": [
                _stage("find", "{{ question }}", strategies=["vote"]),
                _stage("read", "{{ find }}", strategies=["vote"]),
                _stage("solve", "{{ read }}", strategies=["vote", "best_of_n"], verifier="judge"),
            ],
        },
        "data": {
            "source": "inline",
            "rows": [{"question": f"{n}", "answer": f"{n}"} for n in range(1000, 1060)],
            "search": 30,
            "test": 30,
        },
        "budget": {"plan": {"limit": 6e12, "unit": "flops"}, "search": {"trials": 14}},
        "proposer": {"kind": "insight", "batch": 3},
    }
    raw.update(changes)
    return StudySpec.model_validate(raw)


def _stage(name: str, template: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "prompt": [{"role": "system", "template": name}, {"role": "user", "template": template}],
        "parser": {"kind": "text"},
        "models": ["small", "large"],
        "samples": {"min": 1, "max": 16, "choices": [1, 2, 4, 8, 16]},
        "tokens": {"prompt": 20, "output": 10},
        **more,
    }


class DiceBackend:
    """Answers right with the stage's probability; draw i of a prompt is the same wherever it is asked."""

    def __init__(self, model: str, fails: int = 0) -> None:
        self.model = model
        self.draws = 0
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self._fails = fails
        """Requests to refuse before answering."""

    @property
    def identity(self) -> ModelIdentity:
        return ModelIdentity(self.model, "dice")

    async def generate(self, requests: Sequence[DrawRequest]) -> AsyncIterator[Settled | Failed]:
        for position, request in enumerate(requests):
            if self._fails > 0:
                self._fails -= 1
                yield Failed(position, "the dice fell off the table")
                continue
            stage, prompt = request.messages[0].content, request.messages[-1].content
            self.draws += len(request.indices)
            self.calls.append((prompt, request.indices))
            yield Settled(
                position,
                tuple(
                    Draw(i, self._roll(stage, prompt, request.sampling.seed, i), "stop", 20, 10, -1.0)
                    for i in request.indices
                ),
            )

    def _roll(self, stage: str, prompt: str, seed: int, index: int) -> str:
        digest = hashlib.sha256(f"{self.model}/{stage}/{prompt}/{seed}/{index}".encode()).digest()
        if int.from_bytes(digest[:6], "big") / 2**48 < ACCURACY[stage][self.model]:
            return prompt
        # Wrong answers of different prompts differ, so that paths of different examples never meet.
        return f"wrong-{hashlib.sha256(prompt.encode()).hexdigest()[:10]}-{digest[7] % SCATTER[stage]}"

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Settled | Failed]:
        for position, request in enumerate(requests):
            right = bool(re.fullmatch(r"\d+", request.messages[-1].content))
            yield Settled(position, (Draw(0, "", "score", 30, 0, None, 0.9 if right else 0.2),))

    async def close(self) -> None:
        pass


class DiceBackends:
    """Backends by name, made on first use."""

    def __init__(self, fails: int = 0) -> None:
        self.open: dict[str, DiceBackend] = {}
        self._fails = fails

    def backend(self, model: str) -> DiceBackend:
        return self.open.setdefault(model, DiceBackend(model, self._fails))

    @property
    def draws(self) -> int:
        return sum(b.draws for b in self.open.values())
