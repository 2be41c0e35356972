"""Expected scores at every k against brute-force enumeration of every ordered subset at every stage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env.allocation import Allocation, StageSetting
from env.bank import MemorySampleBank
from env.execution import Environment
from env.execution.drawing import key_of
from env.execution.environment import Path
from env.execution.estimates import LEAST_PROBABILITY, Estimator, answer_variable
from env.execution.evidence import StageOutcome
from env.spec import StudySpec
from env.strategies import STRATEGIES, Candidate, ParallelStrategy, StagePlan
from env.tasks.example import Example
from env.tasks.parsers import from_canonical
from tests.simulated import DiceBackends, simulated_spec

Answers = tuple[str | None, ...]

IDS = ("[1]", "[2]", "[1,2]", None)
TEXTS = ('"a"', '"b"', '"c"', None)


def chosen(spec: StudySpec, stage: str, setting: StageSetting, candidates: Sequence[Candidate]) -> str | None:
    """What a strategy makes of draws; one draw is its own answer."""
    strategy = STRATEGIES[setting.strategy]
    assert isinstance(strategy, ParallelStrategy)
    if len(candidates) == 1:
        return candidates[0].answer
    return strategy.choose(StagePlan(spec.pipeline.stage(stage), setting), candidates)


@dataclass
class World:
    """A small pipeline with everything that was drawn for one example."""

    spec: StudySpec
    allocation: Allocation
    held: dict[Answers, tuple[Candidate, ...]]
    """Candidates by the upstream answers; absent where nothing was drawn downstream of them."""

    right: str
    example: Example = field(init=False)
    environment: Environment = field(init=False)
    backends: DiceBackends = field(default_factory=DiceBackends)

    def __post_init__(self) -> None:
        self.example = Example("e", {"question": "q"}, (self.right,))
        self.environment = Environment(self.spec.pipeline, "flops", MemorySampleBank(), self.backends)

    def key(self, upstream: Answers) -> str:
        stages = self.spec.pipeline.stages
        variables = {"question": "q"}
        for stage, answer in zip(stages, upstream, strict=False):
            variables[stage.name] = answer_variable(stage, answer)  # type: ignore[assignment]
        stage = stages[len(upstream)]
        return key_of(self.backends, self.environment.need(stage, self.allocation[stage.name], 1, variables))

    def path(self) -> Path:
        path = Path(self.allocation, self.example, {})
        upstream: Answers = ()
        for stage in self.spec.pipeline.stages:
            setting = self.allocation[stage.name]
            candidates = self.held[upstream]
            answer = chosen(self.spec, stage.name, setting, candidates[: setting.samples])
            key = self.key(upstream)
            path.keys.append(key)
            path.outcomes.append(StageOutcome(stage.name, answer, key, setting.samples, len(candidates), 1, 1))
            upstream = (*upstream, answer)
        return path

    def estimator(self) -> Estimator:
        stages = self.spec.pipeline.stages
        by_key = {(stages[len(up)].name, self.key(up)): drawn for up, drawn in self.held.items()}
        return Estimator(self.environment, by_key, self.backends)

    def enumerated(self, upstream: Answers, k: int) -> tuple[float, float, frozenset[Answers]]:
        """(value, mass, prompts with weight) of the stage after `upstream` at k, by trying everything."""
        stages = self.spec.pipeline.stages
        setting = self.allocation[stages[len(upstream)].name]
        drawn = self.held.get(upstream, ())
        if len(drawn) < k:
            return 0.0, 0.0, frozenset()
        orders = list(permutations(drawn, k))
        counted = Counter(chosen(self.spec, stages[len(upstream)].name, setting, order) for order in orders)
        value = mass = 0.0
        support: frozenset[Answers] = frozenset()
        for answer, times in counted.items():
            chance = times / len(orders)
            if len(upstream) + 1 == len(stages):
                inner = (float(from_canonical(answer) == self.right), 1.0, frozenset((upstream,)))
            elif chance < LEAST_PROBABILITY:
                continue
            else:
                below = self.allocation[stages[len(upstream) + 1].name].samples
                inner = self.enumerated((*upstream, answer), below)
            value, mass = value + chance * inner[0], mass + chance * inner[1]
            support |= inner[2]
        return value, mass, support | {upstream} if support else support


def spec_of(kinds: Sequence[str]) -> StudySpec:
    """A chain of stages; each sees all answers before it, so that different paths have different prompts."""
    spec = simulated_spec().model_dump(mode="json")
    stages = []
    for place, kind in enumerate(kinds):
        before = " ".join(f"{{{{ s{n} }}}}|" for n in range(place))
        stages.append(
            {
                **spec["pipeline"]["stages"][-1],
                "name": f"s{place}",
                "prompt": [{"role": "user", "template": f"{place} {{{{ question }}}} {before}"}],
                "parser": {"kind": "ids"} if kind == "union" else {"kind": "text"},
                "strategies": [kind],
                "samples": {"min": 1, "max": 4},
                "verifier": "judge",
            }
        )
    spec["pipeline"]["stages"] = stages
    return StudySpec.model_validate(spec)


SPECS: dict[tuple[str, ...], StudySpec] = {}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    kinds = draw(
        st.lists(st.sampled_from(["vote", "best_of_n", "union"]), min_size=1, max_size=2).map(
            lambda upstream: (*upstream, "vote")
        )
        | st.lists(st.sampled_from(["vote", "union"]), min_size=1, max_size=2).map(
            lambda upstream: (*upstream, "best_of_n")
        )
    )
    spec = SPECS.setdefault(kinds, spec_of(kinds))
    allocation = Allocation.of(
        {f"s{n}": StageSetting("small", kind, draw(st.integers(1, 3))) for n, kind in enumerate(kinds)}
    )
    world = World(spec, allocation, {}, draw(st.sampled_from(["a", "b"])))
    _grow(draw, world, (), realised=True)
    return world


def _grow(draw: st.DrawFn, world: World, upstream: Answers, realised: bool) -> None:
    """Draw for this prompt, and for what may come after it; off the realised path anything may be missing."""
    stages = world.spec.pipeline.stages
    setting = world.allocation[stages[len(upstream)].name]
    least = setting.samples if realised else max(0, setting.samples - 1)
    number = draw(st.integers(least, 4))
    if number == 0:
        return
    answers = st.sampled_from(IDS if setting.strategy == "union" else TEXTS)
    scores = st.sampled_from([0.1, 0.5, 0.5, 0.9])
    drawn = [Candidate(draw(answers), draw(scores)) for _ in range(number)]
    world.held[upstream] = tuple(drawn)
    if len(upstream) + 1 == len(stages):
        return
    name = stages[len(upstream)].name
    taken = chosen(world.spec, name, setting, drawn[: setting.samples])
    following = {
        chosen(world.spec, name, setting, order)
        for k in range(1, setting.samples + 1)
        for order in permutations(drawn, k)
    }
    for answer in sorted(following, key=str):
        on_path = realised and answer == taken
        if on_path or draw(st.integers(0, 3)) > 0:
            _grow(draw, world, (*upstream, answer), on_path)


@given(worlds())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_scores_and_curves_equal_enumeration_of_all_subsets_at_all_stages(world: World) -> None:
    path = world.path()
    score, curves = world.estimator().example(path)
    upstream: Answers = ()
    for place, stage in enumerate(world.spec.pipeline.stages):
        samples = world.allocation[stage.name].samples
        assert [point.k for point in curves[stage.name]] == list(range(1, samples + 1))
        for point in curves[stage.name]:
            value, mass, support = world.enumerated(upstream, point.k)
            assert point.value == pytest.approx(value, abs=1e-9)
            assert point.mass == pytest.approx(mass, abs=1e-9)
            assert point.draws == sum(len(world.held[prompt]) for prompt in support)
        upstream = (*upstream, path.outcomes[place].answer)
    last = curves[world.spec.pipeline.stages[-1].name][-1]
    assert (score, last.mass) == (pytest.approx(last.value), pytest.approx(1.0))


def small_world(held: Mapping[Answers, Sequence[str | None]], first: int = 2) -> World:
    spec = SPECS.setdefault(("vote", "vote"), spec_of(("vote", "vote")))
    setting = {"s0": StageSetting("small", "vote", first), "s1": StageSetting("small", "vote", 1)}
    candidates = {upstream: tuple(map(Candidate, answers)) for upstream, answers in held.items()}
    return World(spec, Allocation.of(setting), candidates, "a")


def test_an_outcome_nothing_was_drawn_for_is_missing_from_the_mass_and_adds_no_draws() -> None:
    world = small_world({(): ['"x"', '"x"', '"y"'], ('"x"',): ['"a"', '"b"']})
    one, two = world.estimator().example(world.path())[1]["s0"]
    assert tuple(one) == (1, pytest.approx(1 / 3), pytest.approx(2 / 3), 5)
    # Of the three pairs, xx gives x, and each of the two xy is a tie that the earlier one wins: 1/3 + 2/3 * 1/2.
    assert tuple(two) == (2, pytest.approx(1 / 3), pytest.approx(2 / 3), 5)


def test_a_point_without_any_known_outcome_stands_on_no_draws() -> None:
    spec = small_world({(): ['"x"', '"y"'], ('"x"',): ['"a"']}, first=1)
    unknown = spec.estimator()
    assert unknown.example(spec.path())[1]["s0"][0].draws == 3
    spec.held[('"x"',)] = ()
    assert spec.enumerated((), 1)[2] == frozenset()


def test_examples_that_share_prompts_count_their_draws_once() -> None:
    world = small_world({(): ['"x"', '"x"'], ('"x"',): ['"a"', '"b"', '"a"']})
    estimator = world.estimator()
    path = world.path()
    twin = Path(path.allocation, Example("twin", world.example.fields, ("b",)), {}, path.keys, outcomes=path.outcomes)
    first, second = (estimator.example(p)[1] for p in (path, twin))
    assert [point.draws for point in first["s0"]] == [5, 5]
    assert [point.draws for point in second["s0"]] == [0, 0]
    assert estimator.example(path)[1] == first, "asking again changes nothing"
    assert json.loads(json.dumps(first["s1"])) == [[1, pytest.approx(2 / 3), 1.0, 3]]
