"""What the engine's HTTP server answers, in OpenAI's shapes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from env.engine.jobs import Generated, Job
from env.engine.text import CheckpointTokenizer

Json = dict[str, Any]


class ReplyShape:
    """Builds the objects of one reply; ``chat`` tells chat from text completions."""

    def __init__(self, tokenizer: CheckpointTokenizer, model: str, chat: bool, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._chat = chat
        self._with_logprobs = logprobs
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def completion(self, jobs: Sequence[Job]) -> bytes:
        """The whole reply as JSON; choices of the first prompt first.

        Written piece by piece: building and dumping one object for each token's log-probability took a third of the
        server's time, more than the model did.
        """
        choices = [generated for job in jobs for generated in job.answer()]
        envelope = self._envelope("chat.completion" if self._chat else "text_completion", [])
        del envelope["choices"]
        listed = ", ".join([self._written_choice(number, generated) for number, generated in enumerate(choices)])
        return f'{json.dumps(envelope)[:-1]}, "choices": [{listed}], "usage": {json.dumps(usage(jobs))}}}'.encode()

    def chunk(
        self, number: int, text: str, role: bool = False, finish: str | None = None, generated: Generated | None = None
    ) -> Json:
        """One piece of a stream; log-probabilities travel with the finished draw."""
        logprobs = self._logprobs(generated) if generated is not None else None
        choice: Json = {"index": number, "logprobs": logprobs, "finish_reason": finish}
        if generated is not None:
            choice["stop_reason"] = generated.stop
        if self._chat:
            choice["delta"] = ({"role": "assistant"} if role else {}) | ({"content": text} if text or role else {})
        else:
            choice["text"] = text
        return self._envelope("chat.completion.chunk" if self._chat else "text_completion", [choice])

    def usage_chunk(self, jobs: Sequence[Job]) -> Json:
        """The last chunk of a stream that asked for usage."""
        return self._envelope("chat.completion.chunk" if self._chat else "text_completion", []) | {"usage": usage(jobs)}

    def _envelope(self, kind: str, choices: list[Json]) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}

    def _written_choice(self, number: int, generated: Generated) -> str:
        choice: Json = {"index": number, "finish_reason": generated.finish_reason, "stop_reason": generated.stop}
        if not self._chat:
            return json.dumps(choice | {"text": generated.text, "logprobs": self._logprobs(generated)})
        choice["message"] = {"role": "assistant", "content": generated.text}
        if not self._with_logprobs:
            return json.dumps(choice | {"logprobs": None})
        written = self._tokenizer.token_json
        pairs = zip(generated.tokens, generated.logprobs, strict=True)
        entries = ", ".join([f'{written(token)}, "logprob": {value!r}}}' for token, value in pairs])
        return f'{json.dumps(choice)[:-1]}, "logprobs": {{"content": [{entries}]}}}}'

    def _logprobs(self, generated: Generated) -> Json | None:
        if not self._with_logprobs:
            return None
        names = [self._tokenizer.token_text(token) for token in generated.tokens]
        if not self._chat:
            return {"tokens": names, "token_logprobs": list(generated.logprobs), "top_logprobs": None}
        pairs = zip(names, generated.logprobs, strict=True)
        return {
            "content": [
                {"token": name, "logprob": value, "bytes": list(name.encode()), "top_logprobs": []}
                for name, value in pairs
            ]
        }


def usage(jobs: Sequence[Job]) -> Json:
    """Tokens of a reply: each prompt counted once, every choice's output (end tokens included)."""
    prompt = sum(len(job.tokens) for job in jobs)
    output = sum(len(generated.tokens) for job in jobs for generated in job.answer())
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def error_body(message: str, status: int, parameter: str | None = None, code: str | None = None) -> Json:
    """OpenAI's error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def model_list(models: Iterable[tuple[str, int]], created: int) -> Json:
    """The answer of ``/v1/models`` for (name, context length) pairs."""
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": created, "owned_by": "apportion", "max_model_len": context}
            for name, context in models
        ],
    }


def pooled(model: str, scores: Sequence[float], prompt_tokens: int) -> Json:
    """The answer of vLLM's ``/pooling`` for a classifier with one label."""
    return {
        "id": f"pool-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": number, "object": "pooling", "data": [score]} for number, score in enumerate(scores)],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 0, "total_tokens": prompt_tokens},
    }


def classification(model: str, scores: Sequence[float], prompt_tokens: int) -> Json:
    """The answer of vLLM's ``/classify`` for a model with one label."""
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": number, "label": "LABEL_0", "probs": [score], "num_classes": 1}
            for number, score in enumerate(scores)
        ],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 0, "total_tokens": prompt_tokens},
    }
