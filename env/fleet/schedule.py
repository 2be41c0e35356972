"""Which models to keep, load and drop over a sequence of batches, with the fewest loads.

Dropping costs nothing and a load one unit, so only what is needed is loaded, and something is dropped only to make
room. A state is a placement (model -> devices). The search goes through the batches layer by layer and keeps the
cheapest way to each state; with one device and models of one size it gives what Belady's rule gives (drop what is
needed last). Where a layer has more than ``width`` states only the best are kept and the result is no longer known to
be the best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from env.fleet.placement import Claims, Slot, placements, refusal

WIDTH = 2000
"""States kept per batch; all of them for up to five models on two devices."""

_State = tuple[tuple[str, Slot], ...]


@dataclass(frozen=True)
class Step:
    """What happens before one batch."""

    needed: tuple[str, ...]
    load: tuple[str, ...]
    drop: tuple[str, ...]
    up: Mapping[str, Slot]
    """Everything that is up during the batch, and where."""


@dataclass(frozen=True)
class Schedule:
    """Steps for all batches."""

    steps: tuple[Step, ...]
    exact: bool
    """Whether no other schedule has fewer loads."""

    @property
    def loads(self) -> int:
        """Models loaded in all."""
        return sum(len(step.load) for step in self.steps)


@dataclass(frozen=True)
class _Way:
    loads: int
    states: tuple[_State, ...]


def schedule(
    batches: Sequence[Sequence[str]],
    claims: Claims,
    up: Mapping[str, Slot] | None = None,
    pinned: Sequence[str] = (),
    width: int = WIDTH,
) -> Schedule:
    """The schedule with the fewest loads.

    Args:
        batches: models each batch needs, in the order they run.
        claims: what each model takes and what there is.
        up: what is up at the beginning, and where.
        pinned: models of ``up`` that must stay where they are during the first batch.
        width: states kept per batch.

    Raises:
        DoesNotFitError: models that one batch needs do not fit together.
    """
    start: _State = _state(up or {})
    ways: dict[_State, _Way] = {start: _Way(0, ())}
    exact = True
    for number, needed in enumerate(batches):
        fixed = tuple(pinned) if number == 0 else ()
        following: dict[_State, _Way] = {}
        for state, way in ways.items():
            for target, loads in _successors(dict(state), tuple(dict.fromkeys(needed)), fixed, claims):
                total = way.loads + loads
                if target not in following or total < following[target].loads:
                    following[target] = _Way(total, (*way.states, target))
        if not following:
            raise refusal(tuple(dict.fromkeys([*needed, *fixed])), claims)
        if len(following) > width:
            exact = False
            following = _best(following, batches[number + 1 :], width)
        ways = following
    best = min(ways.values(), key=lambda way: way.loads)
    return Schedule(_steps(batches, dict(start), best.states), exact)


def _successors(
    state: dict[str, Slot], needed: tuple[str, ...], fixed: tuple[str, ...], claims: Claims
) -> Iterator[tuple[_State, int]]:
    """States in which all needed models are up, with as much of the rest kept as fits, and the loads to get there."""
    held = [model for model in needed if model in state]
    # Moving a model is a load too, so it is tried only where the models cannot stay where they are.
    for moved_count in range(len(held) + 1):
        found = False
        for moved in combinations([model for model in held if model not in fixed], moved_count):
            staying = {m: state[m] for m in state if (m in held and m not in moved) or m in fixed}
            for placed in placements(needed, claims, staying):
                found = True
                loads = sum(1 for model in needed if state.get(model) != placed[model])
                others = {m: slot for m, slot in state.items() if m not in placed}
                for kept in _largest_kept(placed, others, claims):
                    yield _state({**placed, **kept}), loads
        if found and len(claims.devices) == 1:
            return


def _largest_kept(placed: dict[str, Slot], others: dict[str, Slot], claims: Claims) -> Iterator[dict[str, Slot]]:
    """The largest sets of the others that can stay where they are."""
    names = list(others)
    found: list[frozenset[str]] = []
    for size in range(len(names), -1, -1):
        for chosen in combinations(names, size):
            if any(set(chosen) <= larger for larger in found):
                continue
            if claims.fits({**placed, **{name: others[name] for name in chosen}}):
                found.append(frozenset(chosen))
                yield {name: others[name] for name in chosen}


def _best(ways: dict[_State, _Way], future: Sequence[Sequence[str]], width: int) -> dict[_State, _Way]:
    """The cheapest states; among equals those whose models are needed soonest."""
    next_use: dict[str, int] = {}
    for distance, needed in enumerate(future):
        for model in needed:
            next_use.setdefault(model, distance)

    def rank(item: tuple[_State, _Way]) -> tuple[float, _State]:
        state, way = item
        soon = sum(1 / (1 + next_use[model]) for model, _ in state if model in next_use)
        return way.loads - min(0.999, soon / (1 + len(state))), state

    return dict(sorted(ways.items(), key=rank)[:width])


def _steps(batches: Sequence[Sequence[str]], before: dict[str, Slot], states: Sequence[_State]) -> tuple[Step, ...]:
    steps = []
    for needed, state in zip(batches, states, strict=True):
        after = dict(state)
        steps.append(
            Step(
                needed=tuple(dict.fromkeys(needed)),
                load=tuple(model for model, slot in after.items() if before.get(model) != slot),
                drop=tuple(model for model, slot in before.items() if after.get(model) != slot),
                up=after,
            )
        )
        before = after
    return tuple(steps)


def _state(placed: Mapping[str, Slot]) -> _State:
    return tuple(sorted(placed.items()))
