"""What the embedded critic is worth on the solve stage: verdicts by number of votes, revisions by round, fusions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from env.embedded.curves import stage_inputs, vote
from env.embedded.prompts import (
    MOST_FUSED,
    fuse_prompt,
    judge_prompt,
    parse_number,
    parse_verdict,
    revise_prompt,
)
from env.embedded.sampling import Sampler
from env.embedded.vocabulary import encode, prompt_text
from env.tasks.example import Example

ATTEMPT_MODELS = ("xs", "s", "m")
_ATTEMPTS = 8
_MOST_VOTES = 16
_ROUNDS = 3


@dataclass(frozen=True)
class Criticism:
    """The critic on one model's answers."""

    model: str
    attempt: float
    """Accuracy of one answer."""

    verdict: dict[int, float]
    """By number of votes: share of answers judged correctly; a tie counts half."""

    accepted: dict[int, float]
    """Of right answers, the share judged right."""

    rejected: dict[int, float]
    """Of wrong answers, the share judged wrong."""

    picked: dict[int, float]
    """By number of votes: accuracy of the one of `_ATTEMPTS` answers with the most votes, the earliest of equals."""

    revised: list[float]
    """Accuracy after each round of revision."""

    kept: float
    fixed: float
    """Of right and of wrong answers, the share that is right after one revision."""

    voted: dict[int, float]
    fused: dict[int, float]
    """By number of answers: accuracy of their majority vote, and of the fusion of their final numbers."""

    megaflops: dict[str, float]
    """Mean cost of one call by task: 2 FLOPs a parameter and token, prompt and reply."""


def measure_critic(
    samplers: Mapping[str, Sampler], critic: Sampler, examples: Sequence[Example], temperature: float
) -> list[Criticism]:
    """Have the critic judge, revise and fuse answers to gold expressions; both sample at ``temperature``."""
    users, gold = zip(*(stage_inputs("solve", example) for example in examples), strict=True)
    measured = list[Criticism]()
    for name in ATTEMPT_MODELS:
        drawn = samplers[name].sample("solve", users, _ATTEMPTS, temperature)
        case = _Case(critic, temperature, users, gold, [[one.text for one in row] for row in drawn])
        measured.append(case.criticism(name))
    return measured


def criticism_report(measured: Sequence[Criticism]) -> str:
    """Markdown tables of verdicts, revisions and fusions, then JSON."""
    votes, sizes = list(measured[0].verdict), list(measured[0].voted)
    blocks = [
        (
            [f"votes={count}" for count in votes],
            [
                (f"{one.model}: {label}", [values[count] for count in votes])
                for one in measured
                for label, values in (
                    ("verdicts correct", one.verdict),
                    ("right accepted", one.accepted),
                    ("wrong rejected", one.rejected),
                    (f"best of {_ATTEMPTS}", one.picked),
                )
            ],
        ),
        (
            ["one answer", *(f"round {number}" for number in range(1, _ROUNDS + 1)), "right kept", "wrong fixed"],
            [(one.model, [one.attempt, *one.revised, one.kept, one.fixed]) for one in measured],
        ),
        (
            [f"{way} of {size}" for size in sizes for way in ("vote", "fusion")],
            [(one.model, [way[size] for size in sizes for way in (one.voted, one.fused)]) for one in measured],
        ),
        (
            [f"MFLOPs {task}" for task in measured[0].megaflops],
            [(one.model, list(one.megaflops.values())) for one in measured],
        ),
    ]
    return "\n\n".join(_table(heads, rows) for heads, rows in blocks) + "\n\n" + json.dumps([vars(o) for o in measured])


class _Case:
    """One model's answers to some prompts, and the critic."""

    def __init__(
        self,
        critic: Sampler,
        temperature: float,
        users: Sequence[str],
        gold: Sequence[object],
        answers: Sequence[Sequence[str]],
    ) -> None:
        self._critic, self._temperature = critic, temperature
        self._users, self._gold, self._answers = users, gold, answers
        self._costs = dict[str, float]()

    def criticism(self, model: str) -> Criticism:
        """Measure all three tasks."""
        right = [self._right(number, answer) for number, row in enumerate(self._answers) for answer in row]
        yes = self._yes_votes()
        counts = [2**power for power in range(_MOST_VOTES.bit_length())]
        shares = {count: [_share(votes, count) for votes in yes] for count in counts}
        verdicts = {
            count: [_correct(share, hit) for share, hit in zip(shares[count], right, strict=True)] for count in counts
        }
        rounds = self._revisions()
        voted, fused = self._fusions()
        return Criticism(
            model=model,
            attempt=fmean(right),
            verdict={count: fmean(verdicts[count]) for count in counts},
            accepted={count: _mean_where(verdicts[count], right, True) for count in counts},
            rejected={count: _mean_where(verdicts[count], right, False) for count in counts},
            picked={count: self._picked(shares[count], right) for count in counts},
            revised=[fmean(hits) for hits in rounds],
            kept=_mean_where(rounds[0], right, True),
            fixed=_mean_where(rounds[0], right, False),
            voted=voted,
            fused=fused,
            megaflops=self._costs,
        )

    def _right(self, number: int, answer: str) -> bool:
        return parse_number(answer) == self._gold[number]

    def _ask(self, task: str, prompts: Sequence[str], count: int) -> list[list[str]]:
        drawn = self._critic.sample(task, prompts, count, self._temperature, most_tokens=112)
        tokens = fmean(
            len(encode(prompt_text(task, prompt))) + fmean(one.tokens for one in row)
            for prompt, row in zip(prompts, drawn, strict=True)
        )
        self._costs[task] = 2 * self._critic.parameters * tokens / 1e6
        return [[one.text for one in row] for row in drawn]

    def _yes_votes(self) -> list[list[bool | None]]:
        prompts = [
            judge_prompt(user, answer) for user, row in zip(self._users, self._answers, strict=True) for answer in row
        ]
        return [[parse_verdict(text) for text in row] for row in self._ask("judge", prompts, _MOST_VOTES)]

    def _picked(self, shares: Sequence[float], right: Sequence[bool]) -> float:
        hits = list[bool]()
        for start in range(0, len(right), _ATTEMPTS):
            best = max(range(start, start + _ATTEMPTS), key=lambda index: shares[index])
            hits.append(right[best])
        return fmean(hits)

    def _revisions(self) -> list[list[bool]]:
        """For each round, whether each answer is right after it."""
        rounds = list[list[bool]]()
        numbers = [number for number, row in enumerate(self._answers) for _ in row]
        answers = [answer for row in self._answers for answer in row]
        for _ in range(_ROUNDS):
            prompts = [
                revise_prompt(self._users[number], answer) for number, answer in zip(numbers, answers, strict=True)
            ]
            answers = [row[0] for row in self._ask("revise", prompts, 1)]
            rounds.append([self._right(number, answer) for number, answer in zip(numbers, answers, strict=True)])
        return rounds

    def _fusions(self) -> tuple[dict[int, float], dict[int, float]]:
        voted, fused = dict[int, float](), dict[int, float]()
        for size in (size for size in (2, 4, 8) if size <= MOST_FUSED):
            groups = [
                (number, row[start : start + size])
                for number, row in enumerate(self._answers)
                for start in range(0, len(row), size)
            ]
            votes = [vote([parse_number(answer) for answer in group]) == self._gold[number] for number, group in groups]
            replies = self._ask("fuse", [fuse_prompt(self._users[number], group) for number, group in groups], 1)
            voted[size] = fmean(votes)
            fused[size] = fmean(self._right(number, row[0]) for (number, _), row in zip(groups, replies, strict=True))
        return voted, fused


def _share(votes: Sequence[bool | None], count: int) -> float:
    """Share of yes among the first ``count`` verdicts; none at all counts as no."""
    return fmean(vote is True for vote in votes[:count])


def _correct(share: float, right: bool) -> float:
    return 0.5 if share == 0.5 else float((share > 0.5) == right)


def _mean_where(values: Sequence[float], right: Sequence[bool], wanted: bool) -> float:
    chosen = [float(value) for value, hit in zip(values, right, strict=True) if hit == wanted]
    return fmean(chosen) if chosen else 0.0


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[float]]]) -> str:
    lines = ["| answers of | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    lines += [f"| {label} | " + " | ".join(f"{value:.3f}" for value in values) + " |" for label, values in rows]
    return "\n".join(lines)
