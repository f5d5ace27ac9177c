"""The keys of a decoder's ``config.json``, checked against each other."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

MAX_POSITIONS = 2**28
"""Maximum context length: 20 times that of any published model."""
Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**20)]
"""A dimension of a matrix. The largest published models have 53,248."""
Count: TypeAlias = Annotated[int, Meta(ge=1, le=10_000)]
"""A number of layers, heads or experts."""
Length: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_POSITIONS)]
"""A number of tokens."""
Multiplier: TypeAlias = Annotated[float, Meta(gt=0, le=1e6)]


class ModelClass(Struct):
    """The keys of ``config.json`` that say which model it is."""

    architectures: list[str] | None = None
    model_type: str | None = None
    text_config: dict[str, Any] | None = None
    """The configuration of the decoder, in a multimodal model."""


class DecoderConfig(Struct, kw_only=True):
    """The keys of ``config.json`` that are used. Others are ignored."""

    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Count
    num_attention_heads: Count
    vocab_size: Annotated[int, Meta(ge=1, le=2**24)]
    num_key_value_heads: Count | None = None
    head_dim: Size | None = None
    max_position_embeddings: Length = 2048
    rms_norm_eps: Annotated[float, Meta(gt=0, lt=1)] = 1e-6
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    output_bias: bool | None = None
    mlp_bias: bool = False
    sliding_window: Annotated[int, Meta(ge=0, le=MAX_POSITIONS)] | None = None
    use_sliding_window: bool = False
    max_window_layers: Annotated[int, Meta(ge=0)] = 28
    sliding_window_pattern: Count = 6
    layer_types: list[str] | None = None
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: Annotated[int, Meta(ge=1)] = 4
    num_experts: Annotated[int, Meta(ge=0, le=10_000)] = 0
    num_experts_per_tok: Count = 1
    moe_intermediate_size: Size | None = None
    shared_expert_intermediate_size: Annotated[int, Meta(ge=0, le=2**20)] = 0
    norm_topk_prob: bool = False
    decoder_sparse_step: Count = 1
    mlp_only_layers: list[int] | None = None
    query_pre_attn_scalar: Multiplier | None = None
    attn_logit_softcapping: Multiplier | None = None
    final_logit_softcapping: Multiplier | None = None
    use_bidirectional_attention: bool | None = None
    attention_multiplier: Multiplier | None = None
    embedding_multiplier: Multiplier = 1.0
    residual_multiplier: Multiplier = 1.0
    logits_scaling: Multiplier = 1.0

    def __post_init__(self) -> None:
        """Raise `ValueError` if sizes contradict each other."""
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads or self.num_attention_heads
        if heads % kv_heads:
            raise ValueError(
                f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            )
        if self.head_dim is None and self.hidden_size % heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {heads}"
            )
        if (self.head_dim or self.hidden_size // heads) % 2:
            raise ValueError("head_dim must be even, since pairs of dimensions are rotated")
        for name in ("layer_types", "no_rope_layers"):
            values = getattr(self, name)
            if values is not None and len(values) < self.num_hidden_layers:
                raise ValueError(f"{name} has {len(values)} values for {self.num_hidden_layers} layers")
        if self.num_experts and self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok {self.num_experts_per_tok} of {self.num_experts} experts")
