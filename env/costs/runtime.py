"""Idealized runtime (arXiv 2305.02440): how long a query would keep a named accelerator busy, served alone on it."""

from __future__ import annotations

from env.costs._base import CostDataError, CostOptions, Lack, ModelProfile, StageTokens, refuse_lacks
from env.costs.accelerators import accelerator, lacks_of_accelerator, peak_rate
from env.costs.architecture import weight_bytes
from env.costs.eflops import ARCHITECTURE_LACK
from env.costs.work import Work, decode_work, prefill_work

MOST_ACCELERATORS = 1024


def accelerators_needed(model: ModelProfile, options: CostOptions) -> int:
    """Tensor-parallel degree: stated, else the smallest power of two whose memory holds the weights.

    Raises:
        CostDataError: the architecture or the accelerator is not known, or no degree holds the weights.
    """
    if options.tensor_parallel is not None:
        return options.tensor_parallel
    if model.architecture is None or options.accelerator is None:
        raise CostDataError(f"{model.name}: the number of accelerators needs an architecture and an accelerator")
    room = accelerator(options.accelerator).memory_bytes
    degree = 1
    while degree * room < weight_bytes(model.architecture, model.quantisation):
        degree *= 2
        if degree > MOST_ACCELERATORS:
            raise CostDataError(f"{model.name} does not fit {MOST_ACCELERATORS} x {options.accelerator}")
    return degree


class RuntimeCost:
    """``T = t(prompt) + S Nd g``: a prompt part and a per-token part, each a roofline.

    ``t = max(C / (n peak), B / (n bandwidth))`` over the arithmetic C and the bytes B of `prefill_work`; the time of a
    sample's tokens, ``Nd g``, is the same maximum over `decode_work` (its mean context is what makes g). n is the
    tensor-parallel degree, communication is free, and peak and bandwidth are the vendor's: a bound no server beats.

    With a batch of b sequences, weights are read once for b of them and T is the query's share of the machine's time;
    at b = 1, the default, samples follow each other and T is what the query waits for. Each sample reads the prompt's
    keys and values itself, as servers without cascaded attention do.
    """

    unit = "idealized seconds"

    def __init__(self, options: CostOptions) -> None:
        self._options = options

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        lacks = [] if model.architecture is not None else [ARCHITECTURE_LACK]
        lacks += lacks_of_accelerator(self._options)
        if lacks or model.architecture is None or self._options.accelerator is None:
            return lacks
        room = accelerator(self._options.accelerator).memory_bytes
        needed = weight_bytes(model.architecture, model.quantisation)
        degree = self._options.tensor_parallel or MOST_ACCELERATORS
        if needed > degree * room:
            message = (
                f"the weights of {model.name} take {needed / 1e9:.1f} GB and {degree} x {self._options.accelerator} "
                f"hold {degree * room / 1e9:.0f} GB: raise it, leave it out, or quantise the model"
            )
            return [Lack("plan", "tensor_parallel", message)]
        return []

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        a = model.architecture
        if a is None or self._options.accelerator is None:
            refuse_lacks(self.unit, model, self.lacks(model))
            raise CostDataError(f"{model.name} has no architecture or accelerator")
        batch = self._options.batch_size or 1
        prompt = self._seconds(model, prefill_work(model, a, tokens.prompt, batch))
        sample = self._seconds(model, decode_work(model, a, tokens.prompt, tokens.output, 1, batch, shared=False))
        return tokens.prefills(self._options.prompt_shared) * prompt + tokens.prompts * tokens.samples * sample

    def _seconds(self, model: ModelProfile, work: Work) -> float:
        device = accelerator(str(self._options.accelerator))
        degree = accelerators_needed(model, self._options)
        compute = work.flops / (degree * peak_rate(self._options))
        return max(compute, work.bytes / (degree * device.bytes_per_second))


class AcceleratorSecondsCost:
    """Idealized runtime times the number of accelerators: the paper's cost-aware variant."""

    unit = "accelerator-seconds"

    def __init__(self, options: CostOptions) -> None:
        self._options = options
        self._runtime = RuntimeCost(options)

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        return self._runtime.lacks(model)

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        return self._runtime.stage_cost(model, tokens) * accelerators_needed(model, self._options)
