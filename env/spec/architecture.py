"""What a spec may say of a model's weights: the numbers of its architecture, its quantisation and its price."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from env.spec.strict import Strict

Count = Annotated[int, Field(ge=1, le=10_000_000)]
OptionalCount = Annotated[int, Field(ge=0, le=10_000_000)]


class Architecture(Strict):
    """The numbers of a decoder-only transformer that decide its parameters, its attention and its KV cache."""

    layers: Count
    hidden: Count = Field(description="Width of the residual stream.")
    heads: Count = Field(description="Query heads.")
    kv_heads: Count = Field(description="Key-value heads; fewer than heads is GQA. As many as heads where not given.")
    head_dim: Count = Field(description="Of queries and keys; hidden / heads where not given.")
    inner: OptionalCount = Field(description="Width of the gated MLP of dense layers.")
    vocab: Count
    tied: bool = Field(False, description="Input and output embeddings are one matrix.")
    labels: OptionalCount = Field(0, description="Classes of a scoring head in place of the language-model head.")
    layer_norms: OptionalCount = Field(2, description="Norm vectors of width hidden in a layer (4 in Gemma 2 and 3).")
    qk_norm: bool = Field(False, description="Queries and keys are normed per head, with one vector each.")
    attention_bias: Literal["none", "qkv", "all"] = "none"
    sinks: bool = Field(False, description="One learned sink logit for each head (gpt-oss).")

    experts: OptionalCount = Field(0, description="Routed experts of a mixture layer; 0 is a dense model.")
    active_experts: OptionalCount = Field(0, description="Routed experts a token goes through.")
    shared_experts: OptionalCount = Field(0, description="Experts every token goes through beside them.")
    expert_inner: OptionalCount = Field(0, description="Width of one expert.")
    dense_layers: OptionalCount = Field(0, description="Layers with a plain MLP in a mixture model.")
    expert_bias: bool = Field(False, description="Router and experts have biases (gpt-oss).")

    kv_rank: OptionalCount = Field(0, description="Rank of the compressed keys and values (MLA); 0 is plain attention.")
    q_rank: OptionalCount = Field(0, description="Rank of the compressed queries (MLA); 0 where they are not.")
    rope_dim: OptionalCount = Field(0, description="Part of head_dim that carries the position (MLA).")
    value_dim: OptionalCount = Field(0, description="Of values (MLA).")

    sliding_window: OptionalCount = Field(0, description="Tokens a sliding layer looks back on; 0 is no window.")
    sliding_layers: OptionalCount = Field(0, description="Layers that have the window.")

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, raw: Any) -> Any:
        """What one number decides for another where it is not given."""
        if not isinstance(raw, dict):
            return raw
        filled = {**raw}
        if "heads" in filled:
            filled.setdefault("kv_heads", filled["heads"])
        hidden, heads = filled.get("hidden"), filled.get("heads")
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 and hidden % heads == 0:
            filled.setdefault("head_dim", hidden // heads)
        return filled

    @model_validator(mode="after")
    def _consistent(self) -> Architecture:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is no multiple of kv_heads {self.kv_heads}")
        if self.experts:
            if not 1 <= self.active_experts <= self.experts:
                raise ValueError(f"active_experts must lie in 1..{self.experts}")
            if not self.expert_inner:
                raise ValueError("a mixture of experts needs expert_inner, the width of one expert")
        elif self.active_experts or self.shared_experts or self.dense_layers:
            raise ValueError("active_experts, shared_experts and dense_layers belong to a model with experts")
        if self.dense_layers > self.layers or self.sliding_layers > self.layers:
            raise ValueError(f"dense_layers and sliding_layers are at most layers, {self.layers}")
        if (self.dense_layers or not self.experts) and not self.inner:
            raise ValueError("a dense layer needs inner, the width of its MLP")
        if self.kv_rank and not (0 < self.rope_dim < self.head_dim and self.value_dim):
            raise ValueError("MLA (kv_rank) needs rope_dim, below head_dim, and value_dim")
        if bool(self.sliding_layers) != bool(self.sliding_window):
            raise ValueError("sliding_window and sliding_layers belong together")
        return self


def _form(value: Any) -> str:
    return "named" if isinstance(value, str) else "numbers"


ArchitectureSpec = Annotated[
    Annotated[str, Tag("named"), Field(min_length=1, max_length=100)] | Annotated[Architecture, Tag("numbers")],
    Discriminator(_form),
]
"""The name of a catalogue entry, or the numbers themselves."""


class Quantisation(Strict):
    """Bits of what is kept in memory; arithmetic is another matter (the plan's precision)."""

    weights_bits: float = Field(16.0, gt=0, le=64)
    expert_bits: float | None = Field(None, gt=0, le=64, description="Of routed experts, where they differ.")
    kv_bits: float = Field(16.0, gt=0, le=64)


class Price(Strict):
    """What a provider charges, in US dollars for a million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0, description="Prompt tokens the provider has seen before.")
