"""Equivalent FLOPs of Kinetics (arXiv 2506.05333): arithmetic plus intensity times bytes moved."""

from __future__ import annotations

from env.costs._base import CostDataError, CostOptions, Lack, ModelProfile, StageTokens, refuse_lacks
from env.costs.accelerators import accelerator, lacks_of_accelerator, peak_rate
from env.costs.work import decode_work, prefill_work

KINETICS_INTENSITY = 562.5
"""FLOPs per byte of a B200 at 8 bits (4500 TFLOPS over 8 TB/s), the paper's constant."""

ARCHITECTURE_LACK = Lack(
    "model",
    "architecture",
    "attention and KV cache are counted from it: name an entry of the catalogue "
    "(`python -m env.costs --catalogue` lists them) or write the numbers (layers, hidden, heads, inner, vocab...)",
)


class EflopsCost:
    """``eFLOPs = C + I B`` for a prompt of Np tokens and S samples of Nd tokens each.

    With P active parameters, L layers, H query heads and G kv heads of d dimensions, kv bytes a number, W bytes of
    weights, b sequences in a batch, and T(p, n) = sum of p + j over j = 1..n, the keys n tokens after p others see:

    - prompt, once (or S times where it is not shared): ``C = 2 P Np + 4 H d L T(0, Np)``,
      ``B = 2 G d kv L Np + W / b``;
    - samples: ``C = S (2 P Nd + 4 H d L T(Np, Nd))``,
      ``B = 2 G d kv L (S T(0, Nd) + Np Nd) + S Nd W / b`` where the prompt's cache is read once for all samples,
      ``S Np Nd`` in place of ``Np Nd`` where each sample reads it.

    Layers with a sliding window cap each term of T at the window; MLA has its latent in place of 2 G d; of a mixture
    the experts that b tokens reach are read. The paper leaves W out, as if b were infinite: so do we unless a batch
    size is given. It also counts no prompt pass.
    """

    unit = "eFLOPs"

    def __init__(self, options: CostOptions) -> None:
        self._options = options

    @property
    def intensity(self) -> float:
        """FLOPs that cost as much as one byte: stated, else of the accelerator, else the paper's.

        Raises:
            CostDataError: the accelerator or its rate at that precision is not known.
        """
        if self._options.intensity is not None:
            return self._options.intensity
        if self._options.accelerator is None:
            return KINETICS_INTENSITY
        return peak_rate(self._options) / accelerator(self._options.accelerator).bytes_per_second

    def lacks(self, model: ModelProfile) -> list[Lack]:
        """See `CostModel.lacks`."""
        lacks = [] if model.architecture is not None else [ARCHITECTURE_LACK]
        if self._options.intensity is None and self._options.accelerator is not None:
            lacks += lacks_of_accelerator(self._options)
        return lacks

    def stage_cost(self, model: ModelProfile, tokens: StageTokens) -> float:
        """See `CostModel.stage_cost`."""
        if model.architecture is None:
            refuse_lacks(self.unit, model, self.lacks(model))
            raise CostDataError(f"{model.name} has no architecture")
        shared, batch = self._options.prompt_shared, self._options.batch_size
        prompt = prefill_work(model, model.architecture, tokens.prompt, batch)
        samples = decode_work(model, model.architecture, tokens.prompt, tokens.output, tokens.samples, batch, shared)
        prefills = tokens.prefills(shared)
        flops = prefills * prompt.flops + tokens.prompts * samples.flops
        moved = prefills * prompt.bytes + tokens.prompts * samples.bytes
        return flops + self.intensity * moved
