"""What a batch may still use: requests are sent only while their worst case fits, and a deadline stops the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from env.backends import Draw, DrawRequest, ScoreRequest
from env.calls import Call
from env.errors import ApportionError

MESSAGE_TOKENS = 16
"""Tokens a chat template may put around one message."""


class AllowanceSpent(ApportionError):
    """A limit was reached within a batch; what was drawn until then is settled."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        """Of the limit, as the search budget calls it."""

        super().__init__(message)


@dataclass
class Quota:
    """One limit of a batch."""

    name: str
    unit: str
    left: float
    """What the batch may use of it."""

    price: Callable[[Iterable[Call]], float] | None = None
    """Of calls, in `unit`; non-negative and additive. None for what only a clock tells."""

    per_second: Mapping[str, float] = field(default_factory=dict)
    """Where `price` is None: charged for a second in which a model (by name) answers requests."""

    used: float = 0.0
    flying: float = 0.0
    """Worst case of the requests that were sent and not answered."""

    def worst(self, call: Call) -> float:
        """The most a call can take of this quota; unknown, and so 0, for what only a clock tells."""
        return 0.0 if self.price is None else self.price([call])

    def fits(self, amount: float) -> bool:
        """Whether so much may be set in flight; what a clock tells may as long as anything is left."""
        if self.price is None:
            return self.used < self.left
        return self.used + self.flying + amount <= self.left * (1 + 1e-12)


class Allowance:
    """The limits of one batch. Without quotas and deadline everything may be sent at once.

    A request's worst case is priced before it is sent: its prompt at a token a byte of UTF-8 (no byte-level tokenizer
    makes more) and `MESSAGE_TOKENS` a message, every draw at `max_tokens`. Requests are sent while all that fly fit;
    answers replace the worst case by what was used. So quotas with a price are never passed by what models report,
    and the last part of a budget is spent in smaller and smaller groups of requests.

    Used from one event loop.
    """

    def __init__(self, quotas: Sequence[Quota] = (), deadline: float | None = None) -> None:
        """State the limits.

        Args:
            quotas: limits on what is used.
            deadline: moment of `time.monotonic` after which nothing is sent and running requests are given up.
        """
        self.quotas = tuple(quotas)
        self._deadline = deadline
        self._answered = asyncio.Condition()
        self._in_flight = 0

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; None where there is none."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    async def admit(self, model: str, requests: Sequence[DrawRequest | ScoreRequest]) -> int:
        """Wait until the first request may be sent; returns how many may from the start, and sets them in flight.

        Raises:
            AllowanceSpent: the first does not fit although nothing flies, or the deadline has passed.
        """
        if not self.quotas:
            self.check()
            self._in_flight += 1
            return len(requests)
        async with self._answered:
            while True:
                self.check()
                count = self._admitted(model, requests)
                if count:
                    self._in_flight += 1
                    return count
                if not self._in_flight:
                    raise self._spent(model, requests[0])
                await self._answered.wait()

    async def answered(
        self, model: str, requests: Sequence[DrawRequest | ScoreRequest], draws: Iterable[Sequence[Draw]]
    ) -> None:
        """Replace the worst case of admitted requests by what they used.

        Args:
            model: that was asked.
            requests: those one call of `admit` let through.
            draws: of each request that has any.
        """
        worst = [worst_call(model, request) for request in requests] if self.quotas else []
        used = [used_call(model, of_request) for of_request in draws if of_request] if self.quotas else []
        async with self._answered:
            for quota in self.quotas:
                if quota.price is not None:
                    quota.flying = max(0.0, quota.flying - sum(quota.worst(call) for call in worst))
                    quota.used += quota.price(used)
            self._in_flight -= 1
            self._answered.notify_all()

    def timed(self, model: str, seconds: float) -> None:
        """Charge time in which a model answered requests to the quotas that a clock tells."""
        for quota in self.quotas:
            if quota.price is None:
                quota.used += seconds * quota.per_second.get(model, 1.0)

    def check(self) -> None:
        """Stop a batch that has passed the deadline or a quota that a clock tells.

        Raises:
            AllowanceSpent: it has.
        """
        left = self.seconds_left
        if left is not None and left <= 0:
            raise AllowanceSpent("wall_seconds", "the time of the search was up in the middle of a batch")
        for quota in self.quotas:
            if quota.price is None and quota.used >= quota.left:
                raise AllowanceSpent(
                    quota.name, f"the batch had used the {quota.left:.6g} {quota.unit} that were left before it ended"
                )

    def _admitted(self, model: str, requests: Sequence[DrawRequest | ScoreRequest]) -> int:
        count = 0
        for request in requests:
            amounts = [quota.worst(worst_call(model, request)) for quota in self.quotas]
            if not all(quota.fits(amount) for quota, amount in zip(self.quotas, amounts, strict=True)):
                break
            for quota, amount in zip(self.quotas, amounts, strict=True):
                quota.flying += amount
            count += 1
        return count

    def _spent(self, model: str, request: DrawRequest | ScoreRequest) -> AllowanceSpent:
        call = worst_call(model, request)
        quota = next(q for q in self.quotas if not q.fits(q.worst(call)))
        left = max(0.0, quota.left - quota.used)
        return AllowanceSpent(
            quota.name,
            f"{left:.6g} {quota.unit} were left in the middle of a batch and the next request to {model} may take "
            f"{quota.worst(call):.6g}",
        )


def worst_call(model: str, request: DrawRequest | ScoreRequest) -> Call:
    """The most one request can use; see `Allowance`."""
    prompt = sum(len(m.content.encode("utf-8", "surrogatepass")) + MESSAGE_TOKENS for m in request.messages)
    if isinstance(request, ScoreRequest):
        return Call(model, prompt, 0.0, 0)
    return Call(model, prompt, request.sampling.max_tokens, len(request.indices))


def used_call(model: str, draws: Sequence[Draw]) -> Call:
    """What the draws of one request used; a score with no tokens written only read."""
    output = sum(draw.output_tokens for draw in draws)
    prompt = max(draw.prompt_tokens for draw in draws)
    if draws[0].finish_reason == "score" and not output:
        return Call(model, prompt, 0.0, 0)
    return Call(model, prompt, output / len(draws), len(draws))
