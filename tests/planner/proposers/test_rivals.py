"""The rivals that ask no LLM: each searches as its method says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from planner.history import History, PendingView, RefusedView, TrialView
from planner.proposers import open_proposer
from planner.proposers.rivals import grid as grid_module
from planner.proposers.rivals.grid import GridProposer
from planner.proposers.rivals.moves import crossover, mutate, neighbours
from planner.proposers.rivals.optuna_search import CONSTRAINT, STARTUP, OptunaProposer
from planner.space import SearchSpace
from tests.proposer_cases import ALL, SPACES, grown, past, setup, space_of, stage, trial, truth

THREE, KNOBS, ONE = SPACES["three stages"], SPACES["strategies and knobs"], SPACES["one stage"]


async def search(kind: str, space: SearchSpace, trials: int, seed: int = 0, batch: int = 4) -> list[TrialView]:
    """The trials of a whole search, in order."""
    proposer = open_proposer(kind, setup(space, seed=seed, batch=batch))
    history = History(0, (), trials_left=trials)
    batch_ = (await proposer.initial(history)).proposals
    while True:
        history, _ = grown(history, batch_, space, max(batch, len(batch_)))
        if len(history.trials) >= trials or not batch_:
            return list(history.trials)[:trials]
        batch_ = (await proposer.propose(history, batch, ())).proposals


def best(trials: Sequence[TrialView]) -> float:
    return max(truth(t.allocation) for t in trials)


def optimum(space: SearchSpace) -> float:
    return max(map(truth, space.allocations()))


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["tpe", "evolution", "llmselector"])
async def test_what_learns_from_scores_finds_better_allocations_than_chance(kind: str) -> None:
    space = SPACES["four stages"]
    found = [best(await search(kind, space, 40, seed)) for seed in range(5)]
    chance = [best(await search("random", space, 40, seed)) for seed in range(5)]
    assert np.mean(found) > np.mean(chance)


@pytest.mark.asyncio
async def test_what_the_gaussian_process_suggests_scores_better_than_chance() -> None:
    trials = await search("gp", THREE, 20)
    chance = [t for seed in range(9) for t in await search("random", THREE, 20, seed)]
    modelled = [t.score for t in trials[STARTUP + 2 :]]  # its batches begin at the twelfth trial
    assert np.mean(modelled) > np.mean([t.score for t in chance])
    assert best(trials) > 0.95 * optimum(THREE)


# Grid -----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_grid_visits_every_allocation_once_and_ends() -> None:
    every = list(ONE.allocations())
    trials = await search("grid", ONE, len(every) + 20)
    assert sorted(t.allocation for t in trials) == sorted(every)


@pytest.mark.asyncio
async def test_a_grid_cut_off_early_leaves_no_corner_as_far_as_chance_does() -> None:
    proposer = GridProposer(setup(THREE))
    every = list(THREE.allocations())
    places = proposer._places(every)

    def widest_gap(trials: Sequence[TrialView]) -> float:
        taken = proposer._places([t.allocation for t in trials])
        return float(np.abs(places[:, None] - taken[None]).sum(axis=2).min(axis=1).max())

    gaps = [widest_gap(await search("random", THREE, 30, seed)) for seed in range(9)]
    assert widest_gap(await search("grid", THREE, 30)) < min(gaps)


def test_the_distance_of_two_grid_points_is_what_the_grid_says() -> None:
    proposer = GridProposer(setup(KNOBS))
    knobs = (("documents", 1), ("style", "plain"), ("temperature", 0.3))
    base = Allocation.of({"find": StageSetting("small", "vote", 4, knobs), "solve": StageSetting("small", "vote", 1)})

    def distance(stage_name: str, setting: StageSetting) -> float:
        one, other = proposer._places([base, base.replace(stage_name, setting)])
        return float(np.abs(one - other).sum())

    assert distance("solve", StageSetting("large", "vote", 1)) == pytest.approx(1.0)
    assert distance("solve", StageSetting("small", "vote", 16)) == pytest.approx(1.0)
    assert distance("find", StageSetting("small", "likeliest", 4, knobs)) == pytest.approx(0.5)
    other_style = (("documents", 1), ("style", "terse"), ("temperature", 0.3))
    assert distance("find", StageSetting("small", "vote", 4, other_style)) == pytest.approx(0.5)
    assert distance("find", StageSetting("small", "vote", 8, knobs)) == pytest.approx(0.25)


@pytest.mark.asyncio
async def test_a_space_too_large_for_a_grid_is_made_coarser_in_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_module, "MOST_POINTS", 60)
    wide = space_of([stage("solve", models=ALL, samples={"min": 1, "max": 40})], 3e13)
    trials = await search("grid", wide, 200)
    taken = {
        model: sorted(t.allocation["solve"].samples for t in trials if t.allocation["solve"].model == model)
        for model in ALL
    }
    assert 30 < len(trials) <= 60
    assert all(samples[0] == 1 for samples in taken.values())
    assert all(b >= 1.25 * a for samples in taken.values() for a, b in pairwise(samples))


# Evolution ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_a_child_has_each_stage_from_a_parent_and_a_mutant_differs_in_one_part_of_one_stage(seed: int) -> None:
    generator = random.Random(seed)
    mother, father = KNOBS.sample(generator, 2)
    child = crossover(mother, father, generator)
    assert all(child[s] in (mother[s], father[s]) for s in child.stages)
    mutant = mutate(KNOBS, mother, generator)
    assert mutant == KNOBS.normal(mutant)
    different = [s for s in mother.stages if mutant[s] != mother[s]]
    assert len(different) == 1
    one, other = mother[different[0]], mutant[different[0]]
    # Knobs that come to mean something, or no longer do, follow strategy and samples.
    shared = dict(one.knobs).keys() & dict(other.knobs).keys()
    changes = [one.model != other.model, any(one.knob(k) != other.knob(k) for k in shared)]
    changes.append((one.strategy, one.samples) != (other.strategy, other.samples))
    assert sum(changes) == 1


def test_neighbours_are_the_settings_one_part_away() -> None:
    spec = KNOBS.pipeline.stage("solve")
    found = neighbours(spec, StageSetting("small", "vote", 4))
    assert found == {
        "model": [StageSetting("medium", "vote", 4), StageSetting("large", "vote", 4)],
        "samples": [StageSetting("small", "vote", 2), StageSetting("small", "vote", 8)],
        "strategy": [StageSetting("small", "best_of_n", 4)],
    }
    assert neighbours(spec, StageSetting("small", "vote", 1))["strategy"] == [StageSetting("small", "best_of_n", 2)]


@pytest.mark.asyncio
async def test_evolution_breeds_from_the_best_trials() -> None:
    space = SPACES["four stages"]
    history = past(space, 30)
    proposals = (await open_proposer("evolution", setup(space)).propose(history, 12, ())).proposals
    ranked = sorted(history.trials, key=lambda t: -t.score)
    best_numbers, worst = {t.trial_no for t in ranked[:10]}, {t.trial_no for t in ranked[10:]}
    words = [p.reason for p in proposals if "trial" in p.reason]
    assert len(words) >= 8
    named = {int(n) for reason in words for n in reason.replace(",", "").split() if n.isdigit()}
    assert named <= best_numbers
    assert not named & worst


# LLMSelector ----------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_llmselector_changes_one_stage_at_a_time_and_ends_where_no_single_change_helps() -> None:
    trials = await search("llmselector", THREE, 90, batch=1)
    starts = [t for t in trials if len({s.model for _, s in t.allocation.settings}) == 1][:2]
    scores = {t.allocation: t.score for t in trials}
    incumbent = max(starts, key=lambda t: t.score)
    for t in trials[len(starts) :]:
        nearest_ = min(
            (sum(t.allocation[s] != o.allocation[s] for s in t.allocation.stages), -o.score)
            for o in trials[: trials.index(t)]
        )
        if nearest_[0] > 1:
            break  # the second start
        if t.score > incumbent.score:
            incumbent = t
    around = [
        THREE.normal(incumbent.allocation.replace(s.name, setting))
        for s in THREE.pipeline.stages
        for found in neighbours(s, incumbent.allocation[s.name]).values()
        for setting in found
    ]
    tried = [a for a in around if not THREE.faults(a)]
    assert len(tried) > 5
    assert all(a in scores for a in tried)
    assert max(scores[a] for a in tried) <= incumbent.score


@pytest.mark.asyncio
async def test_llmselector_starts_with_one_model_everywhere() -> None:
    suggestions = await open_proposer("llmselector", setup(THREE)).initial(History(0, ()))
    models = [{s.model for _, s in p.allocation.settings} for p in suggestions.proposals if p.allocation]
    assert models == [{"small"}, {"large"}]


# Optuna ---------------------------------------------------------------------------------------------------------------


def optuna_proposer(kind: str, space: SearchSpace) -> OptunaProposer:
    proposer = open_proposer(kind, setup(space))
    assert isinstance(proposer, OptunaProposer)
    return proposer


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_optuna_is_told_scores_the_budget_as_a_constraint_and_what_is_waiting(kind: str) -> None:
    history = past(KNOBS, 12)
    waiting = next(a for a in KNOBS.allocations() if a not in history.tried)
    dear = Allocation.of({s.name: max(KNOBS._all[s.name], key=lambda x: KNOBS.price(s.name, x)) for s in
                          KNOBS.pipeline.stages})  # fmt: skip
    assert KNOBS.faults(dear)
    nonsense = dear.replace("find", StageSetting("nobody", "vote", 1))
    refused = (RefusedView(1, dear, "", "over budget"), RefusedView(1, nonsense, "", "no model 'nobody'"))
    history = History(3, history.trials, refused, (), 9, (PendingView(waiting, kind),))
    told = optuna_proposer(kind, KNOBS)._study(history, ()).get_trials()
    scored = told[: len(history.trials)]
    assert [t.value for t in scored] == [t.score for t in history.trials]
    assert all(t.constraints[CONSTRAINT] <= 0 for t in scored)
    assert scored[0].constraints[CONSTRAINT] == pytest.approx(history.trials[0].cost / KNOBS.limit - 1)
    infeasible = [t for t in told if t.constraints.get(CONSTRAINT, 0) > 0]
    assert len(infeasible) == 1
    open_ = [t for t in told if t.state.name == "RUNNING"]
    assert len(open_) == (1 if kind == "tpe" else 0)
    assert len(told) == len(scored) + 2


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_an_allocation_told_to_optuna_comes_back_as_it_was(seed: int) -> None:
    proposer = optuna_proposer("tpe", KNOBS)
    (allocation,) = KNOBS.sample(random.Random(seed), 1)
    study = proposer._study(History(0, ()), ())
    study.enqueue_trial(proposer._values(allocation))
    assert proposer._ask(study)[1] == allocation


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["tpe", "gp"])
async def test_below_the_startup_optuna_draws_at_random_and_afterwards_it_models(kind: str) -> None:
    proposer = open_proposer(kind, setup(THREE))
    early = (await proposer.propose(past(THREE, STARTUP - 1), 1, ())).proposals
    late = (await proposer.propose(past(THREE, STARTUP), 1, ())).proposals
    assert "at random" in early[0].reason
    assert f"from {STARTUP} trials" in late[0].reason


@pytest.mark.asyncio
async def test_over_budget_suggestions_are_asked_again_and_chance_helps_out_saying_so() -> None:
    """In this space one allocation in forty is affordable, so that a sampler's guesses are mostly of no use."""
    tight = space_of([stage(n, models=ALL, samples={"min": 1, "max": 100}) for n in ("plan", "find", "solve")], 4e11)
    proposer = optuna_proposer("tpe", tight)
    proposer.max_asks = 5
    proposals = (await proposer.propose(past(tight, 4), 4, ())).proposals
    assert len(proposals) == 4
    assert all(p.allocation is not None and not tight.faults(p.allocation) for p in proposals)
    assert any("5 suggestions of the sampler were over budget or known" in p.reason for p in proposals)


@pytest.mark.asyncio
async def test_a_space_of_one_allocation_has_nothing_to_ask_a_sampler_for() -> None:
    single = space_of([stage("solve", models=["small"], samples={"min": 1, "max": 1})], 1e12)
    for kind in ("tpe", "gp", "grid", "evolution", "llmselector"):
        proposer = open_proposer(kind, setup(single))
        (only,) = (await proposer.initial(History(0, ()))).proposals
        assert only.allocation is not None
        history = History(1, (trial(1, 0, only.allocation, single),))
        assert (await proposer.propose(history, 3, ())).proposals == ()
