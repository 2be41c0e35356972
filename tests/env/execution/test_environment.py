from __future__ import annotations

from dataclasses import replace

import pytest

from env.allocation import Allocation, StageSetting
from env.bank import MemorySampleBank
from env.execution import Environment
from env.spec import StudySpec
from env.strategies import STRATEGIES, Candidate, StagePlan
from env.tasks.data import load_splits
from tests.simulated import DiceBackends, simulated_spec

SPEC = simulated_spec()
EXAMPLES = load_splits(SPEC.data).search


def allocation(find: int = 1, read: int = 1, solve: int = 1, model: str = "small", last: str = "vote") -> Allocation:
    return Allocation.of(
        {
            "find": StageSetting(model, "vote", find),
            "read": StageSetting("large", "vote", read),
            "solve": StageSetting("small", last, solve),
        }
    )


def environment(backends: DiceBackends, bank: MemorySampleBank | None = None, spec: StudySpec = SPEC) -> Environment:
    return Environment(spec.pipeline, "flops", bank or MemorySampleBank(), backends, spec.seed)


@pytest.mark.asyncio
async def test_shared_prefixes_are_drawn_once_in_a_batch() -> None:
    backends = DiceBackends()
    results = await environment(backends).run_batch([allocation(4, 2, 1), allocation(4, 2, 8)], EXAMPLES, "b1")
    # find and read are the same for both; solve needs 8 draws per distinct read answer, asked once.
    assert backends.draws == len(EXAMPLES) * (4 + 2 + 8)
    assert [r.spend.new_draws for r in results] == [len(EXAMPLES) * 7, len(EXAMPLES) * 7]
    assert results[1].spend.reused_draws == len(EXAMPLES) * 7


@pytest.mark.asyncio
async def test_a_second_batch_draws_only_what_is_missing() -> None:
    backends, bank = DiceBackends(), MemorySampleBank()
    env = environment(backends, bank)
    await env.run_batch([allocation(2, 1, 2)], EXAMPLES, "b1")
    before = backends.draws
    result = (await env.run_batch([allocation(2, 1, 8)], EXAMPLES, "b2"))[0]
    assert backends.draws - before == len(EXAMPLES) * 6
    assert result.spend.new_draws == len(EXAMPLES) * 6


@pytest.mark.asyncio
async def test_running_a_batch_again_draws_nothing_and_gives_the_same_result() -> None:
    backends, bank = DiceBackends(), MemorySampleBank()
    first = await environment(backends, bank).run_batch([allocation(4, 2, 4)], EXAMPLES, "b1")
    drawn = backends.draws
    again = await environment(backends, bank).run_batch([allocation(4, 2, 4)], EXAMPLES, "b1")
    assert backends.draws == drawn
    assert again[0].evidence == first[0].evidence
    # The same batch (its origin) still knows that these draws were its own.
    assert replace(again[0].spend, seconds=0) == replace(first[0].spend, seconds=0)


@pytest.mark.asyncio
async def test_costs_are_what_the_formula_says_of_the_tokens_used() -> None:
    result = (await environment(DiceBackends()).run_batch([allocation(2, 1, 4)], EXAMPLES, ""))[0]
    by_hand = 2e9 * (20 + 2 * 10) + 16e9 * (20 + 10) + 2e9 * (20 + 4 * 10)
    assert result.predicted_cost == pytest.approx(by_hand)
    assert result.measured_cost == pytest.approx(by_hand)


@pytest.mark.asyncio
async def test_failed_calls_fail_their_examples_and_are_not_scored_as_wrong() -> None:
    result = (await environment(DiceBackends(fails=3)).run_batch([allocation(2, 1, 1)], EXAMPLES, ""))[0]
    failed = [e for e in result.evidence if e.status == "failed"]
    assert result.failed == len(failed) >= 3
    assert all(e.score is None and "fell off the table" in e.reason for e in failed)
    scored = [e.score for e in result.evidence if e.score is not None]
    assert result.score == pytest.approx(sum(scored) / len(scored))


@pytest.mark.asyncio
async def test_best_of_n_uses_the_verifier_and_counts_it() -> None:
    env = environment(DiceBackends())
    vote, best = await env.run_batch([allocation(4, 4, 4), allocation(4, 4, 4, last="best_of_n")], EXAMPLES, "")
    assert best.score is not None
    assert vote.score is not None
    assert best.score >= vote.score
    assert best.predicted_cost > vote.predicted_cost


@pytest.mark.asyncio
async def test_the_last_stages_curve_is_the_closed_form_over_its_draws() -> None:
    bank = MemorySampleBank()
    result = (await environment(DiceBackends(), bank).run_batch([allocation(4, 4, 8)], EXAMPLES, ""))[0]
    plan = StagePlan(SPEC.pipeline.stage("solve"), StageSetting("small", "vote", 8))
    for evidence, example in zip(result.evidence, EXAMPLES, strict=True):
        outcome = evidence.stages[-1]
        draws = [Candidate(d.text) for d in bank.held([outcome.prompt_key])[outcome.prompt_key]]
        for k, value, mass, _ in evidence.curves["solve"]:
            expected = (STRATEGIES["vote"].outcomes(plan, draws, k) or {}).get(example.answers[0], 0.0)
            assert value == pytest.approx(expected)
            assert mass == pytest.approx(1.0)
        assert evidence.score == pytest.approx(evidence.curves["solve"][-1][1])


@pytest.mark.asyncio
async def test_an_upstream_curve_states_how_much_of_the_outcomes_it_knows() -> None:
    result = (await environment(DiceBackends()).run_batch([allocation(8, 2, 2)], EXAMPLES, ""))[0]
    for evidence in result.evidence:
        ks = [k for k, *_ in evidence.curves["find"]]
        assert ks == [1, 2, 4, 8]
        for _, value, mass, _ in evidence.curves["find"]:
            assert 0 <= value <= mass + 1e-12 <= 1 + 1e-9
    masses = [sum(e.curves["find"][i][2] for e in result.evidence) for i in range(4)]
    assert masses == sorted(masses)  # the more samples, the surer the outcome whose downstream draws are held


@pytest.mark.asyncio
async def test_more_draws_in_the_bank_sharpen_the_score_of_a_smaller_allocation() -> None:
    backends, bank = DiceBackends(), MemorySampleBank()
    env = environment(backends, bank)
    await env.run_batch([allocation(1, 1, 16)], EXAMPLES, "")
    single = (await env.run_batch([allocation(1, 1, 1)], EXAMPLES, ""))[0]
    assert any(e.score not in (0.0, 1.0) for e in single.evidence)
    assert all(e.stages[-1].held == 16 for e in single.evidence)
    assert all(e.realised in (0.0, 1.0) for e in single.evidence)


@pytest.mark.asyncio
async def test_what_progress_raises_stops_the_batch_and_comes_out_as_it_is() -> None:
    class Stop(Exception):
        pass

    def stop(event: object) -> None:
        raise Stop

    bank = MemorySampleBank()
    both = [allocation(1, 1, 1), allocation(1, 1, 1, model="large")]
    with pytest.raises(Stop):
        await environment(DiceBackends(), bank).run_batch(both, EXAMPLES, "", stop)


@pytest.mark.asyncio
async def test_reused_draws_keep_their_measured_time_while_the_environment_lives() -> None:
    env = environment(DiceBackends())
    first = (await env.run_batch([allocation(2, 1, 8, last="best_of_n")], EXAMPLES, "b1"))[0]
    again = (await env.run_batch([allocation(2, 1, 4, last="best_of_n")], EXAMPLES, "b2"))[0]
    assert again.spend.new_draws == 0
    for full, part in zip(first.evidence, again.evidence, strict=True):
        assert full.seconds is not None
        assert part.seconds is not None
        assert 0 < part.seconds < full.seconds


@pytest.mark.asyncio
async def test_draws_of_another_process_have_no_measured_time() -> None:
    bank = MemorySampleBank()
    await environment(DiceBackends(), bank).run_batch([allocation(2, 1, 2)], EXAMPLES, "b1")
    later = (await environment(DiceBackends(), bank).run_batch([allocation(2, 1, 4)], EXAMPLES, "b2"))[0]
    assert all(e.seconds is None for e in later.evidence)
    assert all(e.calls["solve"][0].samples == 4 for e in later.evidence)
