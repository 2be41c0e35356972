"""Reads a verifier's reply: vLLM's ``/classify``, ``/pooling`` and ``/score``, as one number in [0, 1]."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from env.backends._base import Draw
from env.backends.openai_dialect import Dialect
from env.backends.openai_reply import Lenient, MalformedReplyError, Usage, parsed
from env.errors import BackendError

_DEFAULT_NAME = re.compile(r"LABEL_(\d+)")


class _Class(Lenient):
    label: str | None = None
    probs: list[float]


class _Classification(Lenient):
    data: list[_Class]
    usage: Usage | None = None


class _Pooled(Lenient):
    data: list[float] | list[list[float]]


class _Pooling(Lenient):
    data: list[_Pooled]
    usage: Usage | None = None


class _PairScore(Lenient):
    score: float | list[float]


class _PairScores(Lenient):
    data: list[_PairScore]
    usage: Usage | None = None


def read_score(body: bytes, dialect: Dialect, estimated_tokens: int) -> Draw:
    """The verifier's judgement as a draw.

    Args:
        body: the reply.
        dialect: which API answered, what its numbers are, and the label that counts.
        estimated_tokens: stated where the server counts none and estimates are allowed.

    Raises:
        MalformedReplyError: no reply of that API, or no word on the tokens used.
        BackendError: the numbers are none that the dialect's settings explain.
    """
    usage, rows, name = _READERS[dialect.score_path](body)
    if usage is None and dialect.missing_usage == "fail":
        raise MalformedReplyError(
            "the reply does not say how many tokens were used (usage); set missing_usage: estimate on the model",
            healthy=True,
        )
    tokens = estimated_tokens if usage is None else usage.prompt_tokens
    return Draw(0, "", "score", tokens, 0, score=_of_steps(rows, name, dialect))


def _of_steps(rows: Sequence[Sequence[float]], top_label: str | None, dialect: Dialect) -> float:
    """One score from one row of numbers a step (or a single row)."""
    if not rows:
        raise MalformedReplyError(
            "the reply holds no finite numbers: the verifier found no step in the text; a process reward model needs "
            "its step mark in it (step_end of the stage)",
            healthy=True,
        )
    if dialect.steps == "last":
        return score_of(rows[-1], top_label, dialect)
    scores = [score_of(row, top_label, dialect) for row in rows]
    return {"min": min(scores), "mean": math.fsum(scores) / len(scores), "product": math.prod(scores)}[dialect.steps]


def score_of(numbers: Sequence[float], top_label: str | None, dialect: Dialect) -> float:
    """One number in [0, 1] from a verifier's outputs.

    A single probability is the score, a single logit's sigmoid; of several the label's entry counts, after softmax
    where they are logits.

    Args:
        numbers: one for each label.
        top_label: the name of the largest, where the server tells.
        dialect: what the numbers are, and which label counts.

    Raises:
        MalformedReplyError: there are no numbers, or some are not finite.
        BackendError: probabilities outside [0, 1], or no way to tell which label counts.
    """
    if not numbers or not all(map(math.isfinite, numbers)):
        raise MalformedReplyError("the verifier's reply holds no finite numbers")
    if dialect.scores == "probability":
        chances = list(numbers)
        if not all(0 <= chance <= 1 for chance in chances):
            raise BackendError(
                f"the verifier gives {min(numbers):g} to {max(numbers):g}, which are no probabilities; set scores: "
                "logit on the model"
            )
    else:
        chances = [_sigmoid(numbers[0])] if len(numbers) == 1 else _softmax(numbers)
    if len(chances) == 1:
        return chances[0]
    return chances[_place(numbers, top_label, dialect.label)]


def _place(numbers: Sequence[float], top_label: str | None, wanted: int | str | None) -> int:
    """Where the wanted label's number is.

    Replies name the top label only. A name is found if it is that one, if there are two labels, or if it is one of
    Hugging Face's default names.
    """
    count = len(numbers)
    if wanted is None:
        raise BackendError(
            f"the verifier has {count} labels; say which one's probability is the score: label on the model"
        )
    if isinstance(wanted, int):
        if not 0 <= wanted < count:
            raise BackendError(f"the verifier has {count} labels, none at place {wanted}; correct label on the model")
        return wanted
    top = max(range(count), key=numbers.__getitem__)
    default = _DEFAULT_NAME.fullmatch(wanted)
    if top_label == wanted:
        return top
    if default is not None and int(default[1]) < count:
        return int(default[1])
    if top_label is not None and count == 2:
        return 1 - top
    raise BackendError(
        f"the server does not say which of the verifier's {count} labels is {wanted!r}; give its place, 0 to "
        f"{count - 1}, as label on the model"
    )


_Read = tuple[Usage | None, list[list[float]], str | None]
"""What was used, rows of numbers, and the name of the largest where the server tells."""


def _classified(body: bytes) -> _Read:
    reply = parsed(_Classification, body, "classification")
    if not reply.data:
        raise MalformedReplyError("the reply holds no classification")
    return reply.usage, [reply.data[0].probs], reply.data[0].label


def _pooled(body: bytes) -> _Read:
    reply = parsed(_Pooling, body, "pooling reply")
    if not reply.data:
        raise MalformedReplyError("the reply holds no pooled data")
    data = reply.data[0].data
    rows = [row for row in data if isinstance(row, list)]
    numbers = [value for value in data if isinstance(value, float)]
    return reply.usage, rows or ([numbers] if numbers else []), None


def _paired(body: bytes) -> _Read:
    reply = parsed(_PairScores, body, "reply of /score")
    if not reply.data:
        raise MalformedReplyError("the reply holds no score")
    score = reply.data[0].score
    return reply.usage, [score if isinstance(score, list) else [score]], None


_READERS = {"/classify": _classified, "/pooling": _pooled, "/score": _paired}


def _sigmoid(logit: float) -> float:
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    grown = math.exp(logit)
    return grown / (1 + grown)


def _softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = sum(weights)
    return [weight / total for weight in weights]
