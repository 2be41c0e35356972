"""Requests are sent only while their worst case fits, so that no quota is passed and all of it can be used."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.backends import Draw, DrawRequest, Message, Sampling, ScoreRequest
from env.calls import Call
from env.execution.allowance import MESSAGE_TOKENS, Allowance, AllowanceSpent, Quota, used_call, worst_call


def tokens(calls: Iterable[Call]) -> float:
    return sum(call.prompts * (call.prompt + call.samples * call.output) for call in calls)


def a_request(prompt: str = "hello", draws: int = 2, most: int = 50) -> DrawRequest:
    return DrawRequest((Message("user", prompt),), Sampling(max_tokens=most), tuple(range(draws)))


def the_draws(request: DrawRequest, output: int) -> list[Draw]:
    size = len(request.messages[0].content)
    return [Draw(i, "x", "stop", size, min(output, request.sampling.max_tokens)) for i in request.indices]


def test_the_worst_case_is_a_token_a_byte_and_every_draw_at_its_most() -> None:
    assert worst_call("m", a_request("äb", draws=3, most=7)) == Call("m", 3 + MESSAGE_TOKENS, 7, 3)
    judged = ScoreRequest((Message("user", "ab"), Message("assistant", "c")))
    assert worst_call("m", judged) == Call("m", 3 + 2 * MESSAGE_TOKENS, 0.0, 0)
    assert used_call("m", [Draw(0, "", "score", 9, 0, score=0.5)]) == Call("m", 9, 0.0, 0)


REQUESTS = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 60), st.integers(0, 60), st.booleans()),
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(limit=st.integers(0, 4000), wanted=REQUESTS)
def test_two_models_side_by_side_never_pass_a_quota_and_stop_only_where_the_next_might(
    limit: int, wanted: list[tuple[int, int, int, int, bool]]
) -> None:
    allowance = Allowance([Quota("tokens", "tokens", limit, tokens)])
    used = 0.0
    refused: list[DrawRequest] = []

    async def model(name: str, mine: list[tuple[DrawRequest, int]]) -> None:
        nonlocal used
        while mine:
            try:
                count = await allowance.admit(name, [request for request, _ in mine])
            except AllowanceSpent:
                refused.append(mine[0][0])
                return
            part, mine = mine[:count], mine[count:]
            await asyncio.sleep(0)
            answers = [the_draws(request, output) for request, output in part]
            used += tokens(used_call(name, draws) for draws in answers)
            assert used <= limit
            await allowance.answered(name, [request for request, _ in part], answers)

    async def both() -> None:
        requests = [(a_request("x" * size, draws, most), output) for size, draws, most, output, _ in wanted]
        sides = [[r for r, row in zip(requests, wanted, strict=True) if row[-1] is side] for side in (True, False)]
        await asyncio.gather(model("a", sides[0]), model("b", sides[1]))

    asyncio.run(both())
    assert allowance.quotas[0].used == pytest.approx(used)
    assert allowance.quotas[0].flying == pytest.approx(0)
    # The first that was refused did not fit what was left at the time, which was at least what is left now.
    assert all(tokens([worst_call("m", request)]) > limit - used - 1e-6 for request in refused)


@pytest.mark.asyncio
async def test_without_quotas_everything_is_sent_at_once() -> None:
    assert await Allowance().admit("m", [a_request()] * 1000) == 1000


@pytest.mark.asyncio
async def test_nothing_is_sent_after_the_deadline() -> None:
    with pytest.raises(AllowanceSpent, match="time of the search was up"):
        await Allowance((), time.monotonic() - 1).admit("m", [a_request()])


def test_time_is_charged_by_model_and_accelerators() -> None:
    quota = Quota("gpu_seconds", "GPU-seconds", 10.0, None, {"large": 4.0})
    allowance = Allowance([quota])
    allowance.timed("large", 2.0)
    allowance.timed("small", 1.0)
    assert quota.used == 9.0
    allowance.check()
    allowance.timed("small", 1.0)
    with pytest.raises(AllowanceSpent, match="10 GPU-seconds"):
        allowance.check()


@pytest.mark.asyncio
async def test_one_model_waits_for_another_whose_worst_case_holds_the_rest() -> None:
    allowance = Allowance([Quota("tokens", "tokens", 150, tokens)])
    request = a_request(draws=1, most=100)
    assert await allowance.admit("a", [request]) == 1
    waiting = asyncio.create_task(allowance.admit("b", [request]))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await allowance.answered("a", [request], [the_draws(request, 3)])
    assert await waiting == 1
