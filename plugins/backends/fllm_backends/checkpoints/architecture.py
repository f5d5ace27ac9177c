"""Read the architecture of a Llama-family decoder from ``config.json``, in one vocabulary for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import convert, read_json
from fllm_backends.checkpoints.rope_config import Rope, read_rope

MAX_POSITIONS = 2**28
"""Maximum context length: 20 times that of any published model."""
Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**20)]
"""A dimension of a matrix. The largest published models have 53,248."""
Count: TypeAlias = Annotated[int, Meta(ge=1, le=10_000)]
"""A number of layers or heads."""
Length: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_POSITIONS)]
"""A number of tokens."""


class LayerKind(Struct, frozen=True):
    """The properties in which the layers of one model may differ."""

    window: int | None = None
    """Sliding window: number of tokens that a token attends to, itself included. ``None``: all before it."""
    rotary: bool = True
    """Whether the layer applies rotary embeddings. Some layers of SmolLM3 do not."""


class Architecture(Struct, frozen=True, kw_only=True):
    """The dimensions of a decoder."""

    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    layers: tuple[LayerKind, ...]
    rope: Rope
    max_positions: int
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    """Whether the queries and keys of each head are normalised, as in Qwen3."""
    tied: bool = False
    """Whether the embeddings are also the output head."""

    @property
    def parameters(self) -> int:
        """Number of weights in the matrices."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        return len(self.layers) * layer + self.vocab_size * self.hidden_size * (1 if self.tied else 2)


class _Config(Struct, kw_only=True):
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
    sliding_window: Length | None = None
    use_sliding_window: bool = False
    max_window_layers: Annotated[int, Meta(ge=0)] = 28
    layer_types: list[str] | None = None
    no_rope_layers: list[int] | None = None
    no_rope_layer_interval: Annotated[int, Meta(ge=1)] = 4

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


class _ModelClass(Struct):
    """The keys of ``config.json`` that say which model it is."""

    architectures: list[str] | None = None
    model_type: str | None = None


class _Family(Struct, frozen=True, kw_only=True):
    """How a model class reads its configuration."""

    layer: Callable[[_Config, int], LayerKind]
    defaults: dict[str, Any] = {}
    """Defaults of missing keys."""
    fixed: dict[str, Any] = {}
    """Values that override the configuration."""
    qk_norm: bool = False


def read_architecture(directory: Path) -> Architecture:
    """Read ``config.json``. Raise `ModelError` if the torch backend can't serve the model."""
    file = directory / "config.json"
    raw = read_json(file, dict[str, Any])
    kind = convert(raw, _ModelClass, str(file))
    name = _name(kind)
    family = _FAMILIES[name]
    effective = family.defaults | raw | family.fixed
    config = convert(effective, _Config, str(file))
    if config.hidden_act != "silu":
        raise ModelError(f"hidden_act {config.hidden_act!r} is not supported for {name}; supported: silu")
    architecture = _architecture(name, config, read_rope(effective, config.max_position_embeddings, file))
    if architecture.max_positions > MAX_POSITIONS:
        raise ModelError(f"{file}: a context of {architecture.max_positions} tokens; at most {MAX_POSITIONS}")
    return architecture


def _name(kind: _ModelClass) -> str:
    names = kind.architectures or [f"model_type={kind.model_type}"]
    for name in names:
        if name in _FAMILIES:
            return str(name)
    raise ModelError(
        f"the torch backend does not support {', '.join(map(str, names))}; supported: {', '.join(_FAMILIES)}"
    )


def _architecture(name: str, config: _Config, rope: Rope) -> Architecture:
    family, bias = _FAMILIES[name], config.attention_bias
    return Architecture(
        name=name,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=config.head_dim or config.hidden_size // config.num_attention_heads,
        norm_eps=config.rms_norm_eps,
        layers=tuple(family.layer(config, index) for index in range(config.num_hidden_layers)),
        rope=rope,
        max_positions=rope.max_positions(config.max_position_embeddings),
        qkv_bias=bias,
        output_bias=bias if config.output_bias is None else config.output_bias,
        mlp_bias=config.mlp_bias,
        qk_norm=family.qk_norm,
        tied=config.tie_word_embeddings,
    )


def _llama_layer(config: _Config, index: int) -> LayerKind:  # noqa: ARG001
    return LayerKind()


def _mistral_layer(config: _Config, index: int) -> LayerKind:  # noqa: ARG001
    return LayerKind(window=config.sliding_window)


def _qwen_layer(config: _Config, index: int) -> LayerKind:
    return LayerKind(window=_window(config, index, otherwise=index >= config.max_window_layers))


def _smollm3_layer(config: _Config, index: int) -> LayerKind:
    if config.no_rope_layers is not None:
        rotary = bool(config.no_rope_layers[index])
    else:
        rotary = (index + 1) % config.no_rope_layer_interval != 0
    return LayerKind(window=_window(config, index, otherwise=not rotary), rotary=rotary)


def _window(config: _Config, index: int, *, otherwise: bool) -> int | None:
    sliding = config.layer_types[index] == "sliding_attention" if config.layer_types else otherwise
    return config.sliding_window if sliding and config.use_sliding_window else None


_NO_MLP_BIAS = {"mlp_bias": False}
_FAMILIES: dict[str, _Family] = {
    "LlamaForCausalLM": _Family(layer=_llama_layer),
    "MistralForCausalLM": _Family(
        layer=_mistral_layer,
        defaults={"sliding_window": 4096},
        fixed={"attention_bias": False} | _NO_MLP_BIAS,
    ),
    "Qwen2ForCausalLM": _Family(
        layer=_qwen_layer, fixed={"attention_bias": True, "output_bias": False} | _NO_MLP_BIAS
    ),
    "Qwen3ForCausalLM": _Family(
        layer=_qwen_layer, defaults={"head_dim": 128}, fixed=_NO_MLP_BIAS, qk_norm=True
    ),
    "SmolLM3ForCausalLM": _Family(
        layer=_smollm3_layer, defaults={"tie_word_embeddings": True, "rope_theta": 2000000.0}
    ),
}
