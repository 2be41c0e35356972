from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.backends import Draw, Message, ModelIdentity, Sampling
from env.bank import MemorySampleBank, PromptKey, SampleBank
from env.execution.drawing import Drawing, Need, key_of
from env.execution.progress import no_progress
from planner.archive import open_archive
from tests.simulated import DiceBackends


@dataclass
class Watched:
    """A bank that counts its readings, and that another process reaches first where it is told so."""

    bank: SampleBank
    first: Mapping[PromptKey, Sequence[Draw]] = field(default_factory=dict)
    readings: int = 0

    def held(self, keys: Sequence[PromptKey]) -> Mapping[PromptKey, tuple[Draw, ...]]:
        self.readings += 1
        return self.bank.held(keys)

    def settle(self, model: ModelIdentity, draws: Mapping[PromptKey, Sequence[Draw]]) -> int:
        self.bank.settle(model, self.first)
        return self.bank.settle(model, draws)


@contextmanager
def sql_bank(folder: Path) -> Iterator[SampleBank]:
    with open_archive(f"sqlite:///{folder}/archive.db") as archive:
        yield archive.bank


def a_need(number: int, samples: int, max_tokens: int = 16) -> Need:
    messages = (Message("system", "solve"), Message("user", f"{number}"))
    return Need("small", messages, Sampling(max_tokens=max_tokens), samples)


def by_key(backends: DiceBackends, *needs: Need) -> dict[PromptKey, Need]:
    return {key_of(backends, need): need for need in needs}


async def filled(bank: SampleBank, backends: DiceBackends, *needs: Need) -> Mapping[PromptKey, tuple[Draw, ...]]:
    drawing = Drawing(bank, backends, "batch", no_progress)
    return (await drawing.fill("solve", by_key(backends, *needs))).draws


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8))
def test_what_a_fill_gives_is_what_the_bank_holds(
    tmp_path_factory: pytest.TempPathFactory, samples: list[tuple[int, int]]
) -> None:
    with sql_bank(tmp_path_factory.mktemp("bank")) as bank:
        for second in (False, True):
            backends = DiceBackends()
            needs = [a_need(number, pair[second]) for number, pair in enumerate(samples)]
            keys = list(by_key(backends, *needs))
            got = asyncio.run(filled(bank, backends, *needs))
            assert got == bank.held(keys)
            assert [len(got[key]) for key in keys] == [max(pair[: second + 1]) for pair in samples]


@pytest.mark.asyncio
async def test_draws_that_were_all_new_are_not_read_back() -> None:
    bank = Watched(MemorySampleBank())
    await filled(bank, DiceBackends(), a_need(1, 4), a_need(2, 2))
    assert bank.readings == 1  # before anything was asked


@pytest.mark.asyncio
async def test_a_draw_that_another_process_settled_first_is_the_one_that_counts() -> None:
    backends = DiceBackends()
    (key, other) = by_key(backends, a_need(1, 3), a_need(2, 1))
    theirs = Draw(1, "theirs", "stop", 20, 10, -1.0, origin="other")
    bank = Watched(MemorySampleBank(), {key: [theirs]})
    got = await filled(bank, backends, a_need(1, 3), a_need(2, 1))
    assert got[key][1] == theirs
    assert [draw.origin for draw in got[key]] == ["batch", "other", "batch"]
    assert got == bank.held([key, other])


@pytest.mark.asyncio
async def test_what_takes_longest_is_asked_first_and_equals_keep_their_order() -> None:
    backends = DiceBackends()
    needs = [a_need(0, 1), a_need(1, 8), a_need(2, 1), a_need(3, 2, max_tokens=64), a_need(4, 1)]
    await filled(MemorySampleBank(), backends, *needs)
    assert [prompt for prompt, _ in backends.backend("small").calls] == ["1", "3", "0", "2", "4"]
