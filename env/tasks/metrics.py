"""Scores an answer against the accepted ones."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from env.spec.stage import MetricName, StageSpec
from env.tasks.example import Example, JsonValue

Metric = Callable[[JsonValue, Sequence[str]], float]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def metric_of(name: MetricName) -> Metric:
    """The metric of that name: (answer, accepted answers) -> score in [0, 1]; no answer scores 0."""
    return {"exact_match": exact_match, "f1": token_f1}[name]


def stage_answers(stage: StageSpec, example: Example) -> tuple[str, ...]:
    """What a stage should answer on an example, as accepted texts; empty where the data does not say.

    A list in the stage's `gold` field holds several accepted answers; for a stage that answers ids, and in
    `Example.stage_gold`, it is one answer.
    """
    if stage.gold is not None:
        value = example.fields.get(stage.gold)
        several = isinstance(value, list) and (stage.parser.kind != "ids" or any(isinstance(v, list) for v in value))
    else:
        value, several = example.stage_gold.get(stage.name), False
    if value is None or value == []:
        return ()
    return tuple(_as_text(v) for v in value) if several and isinstance(value, list) else (_as_text(value),)


def normalise(text: str) -> str:
    """SQuAD normalisation (Rajpurkar et al. 2016): lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: JsonValue, accepted: Sequence[str]) -> float:
    """1 if the normalised answer equals an accepted one, else 0.

    Where normalisation leaves nothing (an answer that is all punctuation or an article), the raw texts are compared.
    """
    if answer is None:
        return 0.0
    text = _as_text(answer)
    return float(any(_same(text, gold) for gold in accepted))


def token_f1(answer: JsonValue, accepted: Sequence[str]) -> float:
    """SQuAD token F1 against the closest accepted answer."""
    if answer is None:
        return 0.0
    text = _as_text(answer)
    return max((_f1(text, gold) for gold in accepted), default=0.0)


def _as_text(answer: JsonValue) -> str:
    if isinstance(answer, list):
        return " ".join(_as_text(item) for item in answer)
    return str(answer)


def _same(text: str, gold: str) -> bool:
    left, right = normalise(text), normalise(gold)
    return left == right if left or right else text.strip() == gold.strip()


def _f1(text: str, gold: str) -> float:
    left, right = normalise(text).split(), normalise(gold).split()
    if not left or not right:
        return float(_same(text, gold))
    shared = sum((Counter(left) & Counter(right)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(left), shared / len(right)
    return 2 * precision * recall / (precision + recall)
