"""The search budget while a study runs: reserved for each trial before it runs, settled at what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from env.allocation import Allocation
from env.backends.pool import Backends
from env.calls import Call
from env.execution import Allowance, Quota, Spend, TrialResult
from env.spec import StudySpec
from planner.archive import Archive, BudgetExhausted, Claim, Ledger, SearchLedger
from planner.outlay import LEDGER_UNITS, LIMITS, Outlay

Numbered = tuple[int, Allocation]
"""(trial number, allocation)."""

TOKEN_MARGIN = 1.5
"""Reserved over what is planned, which itself grows with the largest excess measured so far. What a batch sends is
bounded apart from this, see `env.execution.allowance`; the margin decides which trials are begun."""

TIME_MARGIN = 1.25
"""The same for times, which are taken from those of earlier trials."""

IDEAL_SHARE = 0.1
"""Share of an accelerator's peak that a server is taken to reach before anything was measured on it."""

Granted = list[Numbered]
Held = Mapping[tuple[str, Ledger], tuple[float, float | None]]
"""(reserved, settled or None) by entry key and ledger."""


@dataclass(frozen=True)
class Reserved:
    """What a round may run."""

    granted: Granted
    refused: Mapping[int, BudgetExhausted]
    """By trial number, why others may not; empty where an earlier run of the step decided."""

    totals: Mapping[str, float]
    """Settled and openly reserved in each ledger, these reservations included."""

    resumed: bool
    """An earlier run of the step had reserved, and may have drawn."""


class SearchBudgets:
    """The ledgers of one study's search."""

    def __init__(self, spec: StudySpec, archive: Archive, study_id: str, backends: Backends, examples: int) -> None:
        """Open the ledgers.

        Args:
            spec: of the study.
            archive: holds it.
            study_id: which.
            backends: its models.
            examples: of the search split.

        Raises:
            ApportionError: a model's size or price cannot be read.
        """
        self.outlay = Outlay(spec)
        self._archive = archive
        self._study_id = study_id
        self._backends = backends
        self._models = tuple(spec.pipeline.models)
        self._examples = examples
        self._limits = {ledger: limit for ledger in LIMITS if (limit := self.outlay.limit(ledger)) is not None}

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline, which counts from the study's first start; None where there is none."""
        limit = self._limits.get("search_wall_seconds")
        return None if limit is None else limit - self._elapsed()

    def _elapsed(self) -> float:
        started = self._archive.studies.get(self._study_id).started_at
        return 0.0 if started is None else (datetime.now(UTC) - started).total_seconds()

    # Before a batch ----------------------------------------------------------------------------------------------

    def reserve(self, waiting: Sequence[Numbered], drift: float = 1.0) -> Reserved:
        """Set aside what each trial may take, in all ledgers or in none; trials that do not fit make room for others.

        Args:
            waiting: the round's trials.
            drift: how far measured costs of earlier trials lay above the predicted ones, at most; at least 1.
        """
        numbers = {_key(number): (number, allocation) for number, allocation in waiting}
        times = self._times(len(waiting))
        claims = {key: self._claims(allocation, drift, times) for key, (_, allocation) in numbers.items()}
        decision = self._archive.ledgers.reserve_batch(self._study_id, claims)
        refused = {numbers[key][0]: error for key, error in decision.refused.items()}
        return Reserved([numbers[key] for key in decision.granted], refused, decision.totals, decision.known)

    def left(self, drift: float = 1.0) -> Left:
        """What the ledgers have left now, for review: what it lets pass, `reserve` grants.

        Args:
            drift: see `reserve`.
        """
        usages = self._archive.ledgers.usages(self._study_id)
        totals = {ledger: usage.total for ledger, usage in usages.items()}
        # Before anything was measured, a time is an equal share of what is left: of one trial, all of it.
        return Left(totals, lambda allocation, beside: self._claims(allocation, drift, self._times(1 + beside)))

    def _claims(self, allocation: Allocation, drift: float, times: _Times) -> list[Claim]:
        planned, worst = self.outlay.planned(allocation), self.outlay.worst(allocation)
        amounts: dict[SearchLedger, float] = {"search": float(self.outlay.most_draws(allocation))}
        for ledger, cost in self.outlay.priced.items():
            expected = cost.of(planned)
            # FLOPs have no limit; what is planned in them is the measure that times are learnt by.
            amounts[ledger] = (
                expected if ledger == "search_flops" else min(cost.of(worst), TOKEN_MARGIN * drift * expected)
            )
        amounts = {ledger: amount * self._examples for ledger, amount in amounts.items()}
        flops = amounts["search_flops"]
        if "search_gpu_seconds" in self._limits:
            amounts["search_gpu_seconds"] = self._gpu_seconds(planned, flops, times)
        if "search_wall_seconds" in self._limits:
            amounts["search_wall_seconds"] = times.wall(flops)
        limits = {**self._limits, "search_wall_seconds": times.wall_limit}
        return [Claim(name, LEDGER_UNITS[name], amount, limits.get(name)) for name, amount in amounts.items()]

    def _gpu_seconds(self, planned: Sequence[Call], flops: float, times: _Times) -> float:
        if times.gpu_rate is not None:
            return TIME_MARGIN * times.gpu_rate * flops
        ideal = self.outlay.ideal_gpu
        if ideal is not None:
            return ideal.of(planned) * self._examples * (self.outlay.calibration or 1 / IDEAL_SHARE)
        return times.gpu_share

    def _times(self, trials: int) -> _Times:
        """What earlier trials took for each planned FLOP, and an equal share of what is left where there are none."""
        if not {"search_gpu_seconds", "search_wall_seconds"} & self._limits.keys():
            return _Times(None, 0.0, None, 0.0, None)
        shares, usages = (
            self._archive.ledgers.settled_shares(self._study_id),
            self._archive.ledgers.usages(self._study_id),
        )
        flops = shares["search_flops"].reserved if "search_flops" in shares else 0.0

        def rate(ledger: SearchLedger) -> float | None:
            return shares[ledger].settled / flops if ledger in shares and flops > 0 else None

        def share(left: float) -> float:
            return max(0.0, left) / max(1, trials) * (1 - 1e-9)

        def total(ledger: SearchLedger) -> float:
            return usages[ledger].total if ledger in usages else 0.0

        gpu_left = self._limits.get("search_gpu_seconds", 0.0) - total("search_gpu_seconds")
        wall_left = self.seconds_left
        wall_limit = None if wall_left is None else total("search_wall_seconds") + wall_left
        return _Times(
            rate("search_gpu_seconds"),
            share(gpu_left),
            rate("search_wall_seconds"),
            share(wall_left or 0.0),
            wall_limit,
        )

    # While it runs -----------------------------------------------------------------------------------------------

    def allowance(self, reserved: Reserved, origin: str) -> Allowance:
        """What the batch may send, whatever was reserved for it: all that the rest of the search has left.

        Args:
            reserved: the batch.
            origin: the name it draws under; what a killed run drew under it counts as used.
        """
        seconds_left = self.seconds_left
        deadline = None if seconds_left is None else time.monotonic() + seconds_left
        priced = self.outlay.priced
        if not {*priced, "search_gpu_seconds"} & self._limits.keys():
            return Allowance((), deadline)
        own = self._archive.ledgers.entries(self._study_id, [_key(number) for number, _ in reserved.granted])
        before = self._drawn(origin) if reserved.resumed else []
        calls = [call for _, call in before]
        quotas: list[Quota] = []
        for ledger, limit in self._limits.items():
            mine = sum(held for (_, name), (held, settled) in own.items() if name == ledger and settled is None)
            left = limit - (reserved.totals.get(ledger, 0.0) - mine)
            if ledger in priced:
                cost = priced[ledger].of
                quotas.append(Quota(LIMITS[ledger], LEDGER_UNITS[ledger], left - cost(calls), cost))
            elif ledger == "search_gpu_seconds":
                left -= mine * self._share_done(reserved, calls)
                per_second = {name: float(n) for name, n in self.outlay.accelerators.items()}
                quotas.append(Quota(LIMITS[ledger], LEDGER_UNITS[ledger], left, None, per_second))
        return Allowance(quotas, deadline)

    def _share_done(self, reserved: Reserved, calls: Sequence[Call]) -> float:
        """Share of a batch's planned arithmetic that these calls did: the measure of a time that nobody took."""
        planned = sum(self.outlay.flops.of(self.outlay.planned(a)) for _, a in reserved.granted) * self._examples
        return min(1.0, self.outlay.flops.of(calls) / planned) if planned > 0 else 0.0

    def _drawn(self, origin: str) -> list[tuple[bool, Call]]:
        """(scores or draws, call under the pipeline's name of the model) of what the bank holds of a batch."""
        names = {self._backends.backend(name).identity: name for name in reversed(self._models)}
        return [
            (scored, Call(names[identity], call.prompt, call.output, call.samples, call.prompts))
            for identity, scored, call in self._archive.bank.asked_by(origin)
            if identity in names
        ]

    # After it ----------------------------------------------------------------------------------------------------

    def settled(self, granted: Granted) -> bool:
        """Whether every entry of these trials is settled."""
        entries = self._archive.ledgers.entries(self._study_id, [_key(number) for number, _ in granted])
        return all(settled is not None for _, settled in entries.values())

    def settle(self, results: Mapping[int, TrialResult]) -> None:
        """Replace the reservations of trials, by number, by what they really took."""
        held = self._archive.ledgers.entries(self._study_id, [_key(number) for number in results])
        amounts = {number: self._amounts(result, held, number) for number, result in results.items()}
        self._settle(amounts, held)

    def _amounts(self, result: TrialResult, held: Held, number: int) -> dict[Ledger, float]:
        amounts: dict[Ledger, float] = {"search": result.spend.new_draws}
        for ledger, cost in self.outlay.priced.items():
            amounts[ledger] = cost.of(result.new_calls)
        if "search_gpu_seconds" in self._limits:
            amounts["search_gpu_seconds"] = self._measured_gpu_seconds(number, result, held)
        if "search_wall_seconds" in self._limits:
            # The clock of this limit runs while servers load.
            amounts["search_wall_seconds"] = result.spend.seconds + (result.spend.load_seconds or 0.0)
        return amounts

    def _settle(self, amounts: Mapping[int, Mapping[Ledger, float]], held: Held) -> None:
        """Settle in the ledgers that an entry is in: one reserved by an older version counts draws alone."""
        own = {
            _key(number): {ledger: amount for ledger, amount in of.items() if (_key(number), ledger) in held}
            for number, of in amounts.items()
        }
        self._archive.ledgers.settle_batch(self._study_id, own)

    def _measured_gpu_seconds(self, number: int, result: TrialResult, held: Held) -> float:
        """Times of all models; what a killed process drew is charged like the rest, or as reserved where all was."""
        measured = sum(seconds * self.outlay.accelerators[name] for name, seconds in result.inference.items())
        if result.timed > 0:
            return measured / result.timed
        return held[_key(number), "search_gpu_seconds"][0]

    def cut(self, reserved: Reserved, origin: str, allowance: Allowance, seconds: float) -> dict[int, TrialResult]:
        """Settle a batch that a limit ended: what it drew, in equal parts.

        Args:
            reserved: the batch.
            origin: the name it drew under.
            allowance: under which it ran.
            seconds: that it ran in this process.

        Returns:
            By trial number, results without evidence and with no predicted cost.
        """
        drawn = self._drawn(origin)
        calls = [call for _, call in drawn]
        share = len(reserved.granted)
        gpu = next((quota.used for quota in allowance.quotas if quota.price is None), 0.0)
        draws = sum(call.samples * call.prompts for scored, call in drawn if not scored)
        prompt = round(sum(call.prompt * call.prompts for scored, call in drawn if not scored))
        output = round(sum(call.output * call.samples * call.prompts for scored, call in drawn if not scored))
        results: dict[int, TrialResult] = {}
        settled: dict[int, dict[Ledger, float]] = {}
        entries = self._archive.ledgers.entries(self._study_id, [_key(number) for number, _ in reserved.granted])
        for place, (number, allocation) in enumerate(reserved.granted):
            own = _part(draws, place, share)
            amounts: dict[Ledger, float] = {"search": own}
            for ledger, cost in self.outlay.priced.items():
                amounts[ledger] = cost.of(calls) / share
            if "search_gpu_seconds" in self._limits:
                before = self._share_done(reserved, calls) if reserved.resumed else 0.0
                held = entries[_key(number), "search_gpu_seconds"][0]
                amounts["search_gpu_seconds"] = max(gpu / share, held * before)
            if "search_wall_seconds" in self._limits:
                amounts["search_wall_seconds"] = seconds / share
            settled[number] = amounts
            spend = Spend(own, 0, _part(prompt, place, share), _part(output, place, share), 0.0, seconds / share)
            results[number] = TrialResult(allocation, (), 0.0, None, spend)
        self._settle(settled, entries)
        return results

    def spent(self) -> list[tuple[SearchLedger, float, str, float | None]]:
        """(ledger, settled, unit, limit) of the ledgers with entries.

        Times are there only where they are limited, so that a study without such a limit says the same in every run.
        """
        usages = self._archive.ledgers.usages(self._study_id)
        lines: list[tuple[SearchLedger, float, str, float | None]] = []
        for ledger, unit in LEDGER_UNITS.items():
            if ledger in usages:
                lines.append((ledger, usages[ledger].settled, unit, self._limits.get(ledger)))
        return lines


class Left:
    """What a search budget has left, and whether a trial fits it, in every ledger with a limit.

    Args:
        totals: settled and openly reserved, by ledger.
        claims: what an allocation would set aside, beside so many others.
    """

    def __init__(self, totals: Mapping[Ledger, float], claims: Callable[[Allocation, int], Sequence[Claim]]) -> None:
        self._totals = totals
        self._claims = claims

    def reason(self, allocation: Allocation, accepted: Sequence[Allocation]) -> str:
        """Why a trial of it may not begin after those accepted before it, with the numbers; empty where it may."""
        taken: dict[Ledger, float] = dict(self._totals)
        for other in accepted:
            for claim in self._claims(other, len(accepted)):
                taken[claim.ledger] = taken.get(claim.ledger, 0.0) + claim.amount
        for claim in self._claims(allocation, len(accepted)):
            total = taken.get(claim.ledger, 0.0)
            if claim.limit is not None and total + claim.amount > claim.limit:
                return (
                    f"over the search budget: the trial may need {claim.amount:,.6g} {claim.unit}, "
                    f"{max(0.0, claim.limit - total):,.6g} of {claim.limit:,.6g} are left"
                )
        return ""


@dataclass(frozen=True)
class _Times:
    """What is known of times before a batch."""

    gpu_rate: float | None
    """GPU-seconds for each planned FLOP; None before the first trial."""

    gpu_share: float
    wall_rate: float | None
    wall_share: float
    wall_limit: float | None
    """What the wall ledger may hold in total at this moment."""

    def wall(self, flops: float) -> float:
        """Seconds to set aside for a trial."""
        return self.wall_share if self.wall_rate is None else TIME_MARGIN * self.wall_rate * flops


def _key(number: int) -> str:
    return f"trial-{number}"


def _part(total: int, place: int, parts: int) -> int:
    """One of nearly equal whole parts of a total."""
    return total // parts + (place < total % parts)
