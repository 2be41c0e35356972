"""What earlier studies teach: their tasks and runs in words that hold for any pipeline, and which task is like another.

Names of models and numbers of samples mean nothing in another study. A run is therefore told canonically, as MLCopilot
does (arXiv 2304.14979): size of the model among the stage's, few or many samples, share of the budget, level of score.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from env.allocation import Allocation
from env.spec import StageSpec
from planner.space import SearchSpace

LEVELS = ("worst fifth", "second fifth", "middle fifth", "fourth fifth", "best fifth")
MAX_RUNS_TOLD = 8


@dataclass(frozen=True)
class PastRun:
    """One trial of an earlier study."""

    words: str
    """Its allocation, as `canonical` tells it."""

    score: float


@dataclass(frozen=True)
class PastTask:
    """An earlier study."""

    name: str
    task: str
    """What its pipeline was for, stages included."""

    runs: tuple[PastRun, ...]


def canonical(space: SearchSpace, allocation: Allocation) -> str:
    """An allocation without names of models and without numbers."""
    return "; ".join(
        f"{stage.name}: {_size(space, stage, allocation[stage.name].model)} model, "
        f"{_samples(allocation[stage.name].samples)}"
        f"{f' by {allocation[stage.name].strategy}' if allocation[stage.name].samples > 1 else ''}, "
        f"{_share(space.price(stage.name, allocation[stage.name]) / space.limit)} of the budget"
        for stage in space.pipeline.stages
    )


def told(runs: Sequence[PastRun], most: int = MAX_RUNS_TOLD) -> list[dict[str, str]]:
    """Runs with their scores as levels within the list, best first; the best and the worst where they are too many."""
    ranked = sorted(runs, key=lambda run: (-run.score, run.words))
    if not ranked:
        return []
    low, high = ranked[-1].score, ranked[0].score
    kept = ranked if len(ranked) <= most else ranked[: most - most // 3] + ranked[len(ranked) - most // 3 :]
    return [{"allocation": run.words, "score": _level(run.score, low, high)} for run in kept]


def nearest(task: str, pool: Sequence[PastTask], count: int) -> list[PastTask]:
    """The earlier tasks whose descriptions share most words with this one, most alike first.

    Cosine of word counts, each weighted by how rare the word is in the pool.
    """
    counts = [_words(past.task) for past in pool]
    document = Counter(word for words in counts for word in words)
    weight = {word: math.log(1 + len(pool) / n) for word, n in document.items()}
    here = _words(task)
    ranked = sorted(range(len(pool)), key=lambda i: (-_cosine(here, counts[i], weight), pool[i].name))
    return [pool[i] for i in ranked[:count]]


def _size(space: SearchSpace, stage: StageSpec, model: str) -> str:
    sizes = sorted({space.cost.parameters[name] for name in stage.models})
    if len(sizes) == 1:
        return "the only size of"
    position = sizes.index(space.cost.parameters[model])
    return "the smallest" if position == 0 else "the largest" if position == len(sizes) - 1 else "a middle"


def _samples(samples: int) -> str:
    return "one sample" if samples == 1 else "few samples" if samples <= 4 else "several" if samples <= 16 else "many"


def _share(share: float) -> str:
    names = ((0.1, "hardly any"), (0.35, "a small part"), (0.65, "about half"))
    return next((name for most, name in names if share < most), "most")


def _level(score: float, low: float, high: float) -> str:
    return LEVELS[-1] if high <= low else LEVELS[min(4, int(5 * (score - low) / (high - low)))]


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z0-9]{3,}", text.lower()))


def _cosine(left: Counter[str], right: Counter[str], weight: dict[str, float]) -> float:
    def norm(counts: Counter[str]) -> float:
        return math.sqrt(sum((n * weight.get(word, 1.0)) ** 2 for word, n in counts.items()))

    shared = sum(left[w] * right[w] * weight.get(w, 1.0) ** 2 for w in left.keys() & right.keys())
    size = norm(left) * norm(right)
    return shared / size if size else 0.0
