"""Recorded solutions of one benchmark as arrays, answers as small numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from env.strategies.stopping import ProbeCut
from env.strategies.tallies import NO_ANSWER, Floats, Ints

MODELS = {"Qwen3-0.6B": 0.6e9, "Qwen3-1.7B": 1.7e9, "Qwen3-4B": 4.0e9, "Qwen3-8B": 8.2e9}
"""Parameters by model, smallest first."""

TICK = 500
"""Tokens between two probes, and between two looks of a controller."""

PROBE_TOKENS = 20
"""Tokens a probe is charged: what a model writes when its thinking is closed and an answer forced out of it."""

_WHOLE = re.compile(r"\d{1,3}")


@dataclass(frozen=True)
class Recording:
    """The solutions of one model on one benchmark."""

    answers: Ints
    """Code of the final answer, shape (questions, draws)."""

    tokens: Floats
    """Length of the whole solution, shape (questions, draws)."""

    probes: NDArray[np.int16]
    """Code of the answer after 500, 1000, ... tokens, shape (questions, draws, probes); `NO_ANSWER` beyond the end."""

    gold: Ints
    """Code of the right answer, shape (questions,)."""

    codes: int
    """Answers are coded 0 .. codes - 1."""

    def cut(self, rule: ProbeCut) -> Recording:
        """The same solutions, each ended where the rule ends it, with the answer probed there."""
        at = rule.cuts(self.probes.astype(np.int64))
        ended = at >= 0
        probed = np.take_along_axis(self.probes, np.maximum(at, 0)[..., None], -1)[..., 0].astype(np.int64)
        answers = np.where(ended, probed, self.answers)
        tokens = np.where(ended, TICK * (at + 1.0), self.tokens)
        return Recording(answers, tokens, self.probes, self.gold, self.codes)


def load(path: Path, benchmark: str) -> dict[str, Recording]:
    """Solutions of one benchmark, by model; nothing of any other benchmark is kept.

    AIME answers are whole numbers from 0 to 999, so anything else is no answer and does not vote, in self-consistency
    as in every rule. A solution's last probe always equals its final answer; it is taken for just that, known at the
    end only.

    Args:
        path: the recorded pools (benchmark, model, question_id, sample, tokens, answer, probes, gold).
        benchmark: for instance ``aime24``.
    """
    rows = pq.read_table(path, filters=[("benchmark", "=", benchmark)]).to_pylist()
    if not rows:
        raise SystemExit(f"{path} holds no solutions of {benchmark}")
    questions = {q: i for i, q in enumerate(sorted({row["question_id"] for row in rows}))}
    draws = 1 + max(row["sample"] for row in rows)
    longest = max(len(row["probes"]) for row in rows)
    shape = (len(questions), draws)
    gold = np.zeros(len(questions), dtype=np.int64)
    coder = [_Coder() for _ in questions]
    found: dict[str, Recording] = {}
    for model in MODELS:
        answers = np.full(shape, NO_ANSWER, dtype=np.int64)
        tokens = np.full(shape, np.nan)
        probes = np.full((*shape, longest), NO_ANSWER, dtype=np.int16)
        for row in (row for row in rows if row["model"] == model):
            place = questions[row["question_id"]]
            code, draw = coder[place], row["sample"]
            gold[place] = code(row["gold"])
            answers[place, draw], tokens[place, draw] = code(row["answer"]), row["tokens"]
            listed = [code(probe) for n, probe in enumerate(row["probes"][:-1], 1) if TICK * n < row["tokens"]]
            probes[place, draw, : len(listed)] = listed
        if np.isnan(tokens).any():
            raise SystemExit(f"{path}: {model} does not have {draws} solutions of each question of {benchmark}")
        found[model] = Recording(answers, tokens, probes, gold, 0)
    codes = max(len(code.known) for code in coder)
    return {m: Recording(r.answers, r.tokens, r.probes, gold, codes) for m, r in found.items()}


class _Coder:
    """Numbers the answers of one question in the order met."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}

    def __call__(self, text: str) -> int:
        if not _WHOLE.fullmatch(text):
            return NO_ANSWER
        return self.known.setdefault(int(text), len(self.known))
