"""The best allocation at each budget, with every stage fed by what the one before really wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean

from env.embedded.curves import PARSERS, union_of, vote
from env.embedded.prompts import read_prompt, retrieve_prompt
from env.embedded.sampling import Sampled, Sampler
from env.embedded.vocabulary import encode, prompt_text
from env.tasks.example import Example

EARLY_SAMPLES = (1, 2, 4, 8)
SOLVE_SAMPLES = (1, 2, 4, 8, 16)
BUDGETS = (15, 30, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1920)
"""MFLOPs a query."""

Choice = tuple[str, str, int]
"""Model, aggregation (``vote`` or ``union``) and samples of a stage."""


@dataclass(frozen=True)
class Measured:
    """One allocation."""

    retrieve: Choice
    read: Choice
    solve: Choice
    accuracy: float
    megaflops: float


class _Draws:
    """Draws of one stage by model and prompt, each generated once however many allocations ask for it."""

    def __init__(self, samplers: Mapping[str, Sampler], stage: str, most: int, temperature: float) -> None:
        self._samplers, self._stage, self._most, self._temperature = samplers, stage, most, temperature
        self._held = dict[tuple[str, str], list[Sampled]]()

    def fill(self, users: Iterable[str]) -> None:
        wanted = sorted(set(users))
        for name, sampler in self._samplers.items():
            drawn = sampler.sample(self._stage, wanted, self._most, self._temperature)
            self._held.update({(name, user): row for user, row in zip(wanted, drawn, strict=True)})

    def answers(self, choice: Choice, user: str) -> list[object]:
        parse = PARSERS[self._stage]
        return [parse(one.text) for one in self._held[choice[0], user][: choice[2]]]

    def megaflops(self, choice: Choice, user: str) -> float:
        name, _, count = choice
        generated = sum(one.tokens for one in self._held[name, user][:count])
        tokens = len(encode(prompt_text(self._stage, user))) + generated
        parameters: int = self._samplers[name].parameters
        return 2e-6 * parameters * tokens


def measure_pipeline(
    samplers: Mapping[str, Sampler], examples: Sequence[Example], temperature: float
) -> list[Measured]:
    """Accuracy and cost of every allocation, from one realisation of each."""
    early = [(name, "vote", count) for name in samplers for count in EARLY_SAMPLES]
    retrievals = early + [(name, "union", count) for name in samplers for count in EARLY_SAMPLES[1:]]
    solves = [(name, "vote", count) for name in samplers for count in SOLVE_SAMPLES]
    retrieve = _Draws(samplers, "retrieve", max(EARLY_SAMPLES), temperature)
    read = _Draws(samplers, "read", max(EARLY_SAMPLES), temperature)
    solve = _Draws(samplers, "solve", max(SOLVE_SAMPLES), temperature)

    stories = [[str(sentence) for sentence in _listed(example.fields["story"])] for example in examples]
    people = [str(example.fields["person"]) for example in examples]
    asked = [retrieve_prompt(story, person) for story, person in zip(stories, people, strict=True)]
    retrieve.fill(asked)
    passed = {
        (choice, row): _read_user(retrieve.answers(choice, user), choice[1], stories[row], people[row])
        for choice in retrievals
        for row, user in enumerate(asked)
    }
    read.fill(passed.values())
    ledgers = {
        (choice, user): str(vote(read.answers(choice, user)) or "0 0")
        for choice in early
        for user in set(passed.values())
    }
    solve.fill(ledgers.values())
    finals = {(choice, user): vote(solve.answers(choice, user)) for choice in solves for user in set(ledgers.values())}
    solve_cost = {key: solve.megaflops(*key) for key in finals}
    read_cost = {key: read.megaflops(*key) for key in ledgers}

    measured = list[Measured]()
    for first, second in product(retrievals, early):
        users = [passed[first, row] for row in range(len(examples))]
        written = [ledgers[second, user] for user in users]
        before = fmean(
            retrieve.megaflops(first, question) + read_cost[second, user]
            for question, user in zip(asked, users, strict=True)
        )
        for third in solves:
            right = fmean(
                finals[third, ledger] in example.answers for ledger, example in zip(written, examples, strict=True)
            )
            cost = before + fmean(solve_cost[third, ledger] for ledger in written)
            measured.append(Measured(first, second, third, right, cost))
    return measured


def best_within(measured: Iterable[Measured], budget: float) -> Measured | None:
    """The most accurate allocation of at most ``budget`` MFLOPs a query, the cheapest on a tie."""
    feasible = [one for one in measured if one.megaflops <= budget]
    return max(feasible, key=lambda one: (one.accuracy, -one.megaflops), default=None)


def pipeline_report(measured: Sequence[Measured]) -> str:
    """Markdown of the best allocation by budget and of one model in all stages once, then the former as JSON."""
    lines = ["| MFLOPs | accuracy | retrieve | read | solve |", "|---|---|---|---|---|"]
    found = {budget: best_within(measured, budget) for budget in BUDGETS}
    for budget, best in found.items():
        if best is not None:
            lines.append(f"| {budget} | {best.accuracy:.3f} | {_cells(best)} |")
    lines += ["", "| MFLOPs | accuracy | retrieve | read | solve |", "|---|---|---|---|---|"]
    for one in measured:
        choices = (one.retrieve, one.read, one.solve)
        if len({choice[0] for choice in choices}) == 1 and all(choice[2] == 1 for choice in choices):
            lines.append(f"| {one.megaflops:.1f} | {one.accuracy:.3f} | {_cells(one)} |")
    rows = {budget: None if best is None else vars(best) for budget, best in found.items()}
    return "\n".join(lines) + "\n\n" + json.dumps(rows)


def _cells(one: Measured) -> str:
    return " | ".join(f"{name} {how} {count}" for name, how, count in (one.retrieve, one.read, one.solve))


def _read_user(answers: Sequence[object], how: str, story: Sequence[str], person: str) -> str:
    chosen = union_of([vote(answers)] if how == "vote" else answers, len(story))
    return read_prompt([story[number - 1] for number in sorted(chosen)], person)


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]
