"""The only way in: what a proposal must be before it runs, and why it was refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from env.allocation import Allocation
from planner.proposers import Proposal
from planner.space import SearchSpace

Check = Callable[[Proposal, Allocation, Sequence[Allocation]], str]
"""A further condition: the proposal, its allocation in normal form, and what was accepted of the batch before it -> why
it is refused; empty where it is not."""


@dataclass(frozen=True)
class Verdict:
    """What review says of one proposal."""

    proposal: Proposal
    allocation: Allocation | None
    """In normal form, where it could be read."""

    accepted: bool
    reason: str = ""
    """Why it was refused; empty where it was not."""


def review(
    proposals: Sequence[Proposal],
    space: SearchSpace,
    taken: Collection[Allocation],
    room: int,
    checks: Sequence[Check] = (),
) -> list[Verdict]:
    """Judge a batch in order.

    Refused are proposals that cannot be read, name what does not exist, leave a stage's range, exceed the plan budget,
    repeat a trial or another proposal of the batch, or come after the batch is full. Nothing is repaired: an
    allocation runs as it was proposed or not at all.

    Args:
        proposals: as they came.
        space: the search space.
        taken: allocations that ran or are accepted already, in normal form.
        room: how many may still be accepted.
        checks: what the study so far adds: the search budget, trials that are answered already.
    """
    seen = set(taken)
    verdicts: list[Verdict] = []
    accepted: list[Allocation] = []
    for proposal in proposals:
        allocation, reason = _judge(proposal, space, seen)
        if not reason and len(accepted) >= room:
            reason = f"the batch is full: {room} allocations were asked for"
        if not reason and allocation is not None:
            reason = next(filter(None, (check(proposal, allocation, accepted) for check in checks)), "")
        if reason:
            verdicts.append(Verdict(proposal, allocation, False, reason))
            continue
        assert allocation is not None
        seen.add(allocation)
        accepted.append(allocation)
        verdicts.append(Verdict(proposal, allocation, True))
    return verdicts


def _judge(proposal: Proposal, space: SearchSpace, seen: Collection[Allocation]) -> tuple[Allocation | None, str]:
    if proposal.allocation is None:
        return None, proposal.problem or "not an allocation"
    faults = space.faults(proposal.allocation)
    if faults:
        return proposal.allocation, "; ".join(faults)
    allocation = space.normal(proposal.allocation)
    if allocation in seen:
        return allocation, "duplicate: this allocation was tried or proposed already"
    return allocation, ""
