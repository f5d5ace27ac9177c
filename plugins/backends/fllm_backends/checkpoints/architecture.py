"""The architecture of a decoder, and how ``config.json`` of each model class describes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.decoder_config import MAX_POSITIONS, DecoderConfig, ModelClass
from fllm_backends.checkpoints.json_files import convert, read_json
from fllm_backends.checkpoints.rope_config import LAYER_TYPES, Rope, UnsupportedModelError, read_ropes

Activation: TypeAlias = Literal["silu", "gelu", "gelu_tanh"]
"""Activation of the gate of an MLP. ``gelu_tanh`` is GELU's approximation by a hyperbolic tangent."""

Feature: TypeAlias = Literal[
    "experts",
    "activation",
    "several ropes",
    "rope by length",
    "partial rotary",
    "interleaved rotary",
    "full qk norm",
    "no pre norm",
    "post norm",
    "norm offset",
    "attention scale",
    "attention softcap",
    "logit softcap",
    "embedding scale",
    "residual scale",
    "logit scale",
]
"""A property in which an `Architecture` differs from Llama's."""


class LayerKind(Struct, frozen=True):
    """The properties in which the layers of one model may differ."""

    window: int | None = None
    """Sliding window: number of tokens that a token attends to, itself included. ``None``: all before it."""
    rotary: bool = True
    """Whether the layer applies rotary embeddings. Some layers of SmolLM3 do not."""
    rope: int = 0
    """Index in `Architecture.ropes`. Layers with a window may have rotary embeddings of their own."""
    sparse: bool = False
    """Whether the layer's MLP is a mixture of `Architecture.experts`."""


class ExpertShape(Struct, frozen=True, kw_only=True):
    """The experts of each sparse layer. A router chooses some of them for each token."""

    count: int
    per_token: int
    """Number of experts that compute each token: those with the highest softmax of the router's logits."""
    intermediate_size: int
    normalized: bool
    """Whether the weights of the chosen experts are divided by their sum."""
    shared_intermediate_size: int = 0
    """Size of an expert that computes every token, times the sigmoid of its own gate. 0: there is none."""


class Architecture(Struct, frozen=True, kw_only=True):
    """The dimensions and variations of a decoder. Defaults are those of Llama."""

    name: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Size of the MLP in layers that are not sparse."""
    heads: int
    kv_heads: int
    head_dim: int
    norm_eps: float
    layers: tuple[LayerKind, ...]
    ropes: tuple[Rope, ...]
    """Rotary embeddings, which layers choose by index."""
    max_positions: int
    rotary_dim: int
    """Number of dimensions of each head that are rotated: the first ones. Usually all of ``head_dim``."""
    rope_interleaved: bool = False
    """Whether each dimension is rotated with the next one, as in GLM-4, and not with that half of
    ``rotary_dim`` away."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: Literal["head", "full"] | None = None
    """Whether the queries and keys are normalised: those of each head, as in Qwen3, or all, as in OLMo 2."""
    pre_norm: bool = True
    """Whether the inputs of attention and MLP are normalised."""
    post_norm: bool = False
    """Whether the outputs of attention and MLP are normalised before they are added to the hidden states."""
    norm_offset: float = 0.0
    """Number that is added to the stored weights of all norms: 1 in Gemma. See `RMSNorm`."""
    activation: Activation = "silu"
    experts: ExpertShape | None = None
    attention_scale: float | None = None
    """Factor of the attention scores. ``None``: ``head_dim ** -0.5``."""
    attention_softcap: float | None = None
    """Attention scores become ``softcap * tanh(score / softcap)``, after scaling."""
    logit_softcap: float | None = None
    """Logits become ``softcap * tanh(logit / softcap)``, after `logit_scale`."""
    embedding_scale: float = 1.0
    """Factor of the embeddings, in the dtype of the weights. It does not apply to a tied output head."""
    residual_scale: float = 1.0
    """Factor of the outputs of attention and MLP, when they are added to the hidden states."""
    logit_scale: float = 1.0
    """Factor of the logits."""
    tied: bool = False
    """Whether the embeddings are also the output head."""

    @property
    def recurrent(self) -> bool:
        """Whether layers keep a state for each sequence: none of these does."""
        return False

    @property
    def parameters(self) -> int:
        """Number of weights in the matrices."""
        attention = 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        layers = sum(attention + 3 * self.hidden_size * self._mlp_width(kind) for kind in self.layers)
        return layers + self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def long_context_start(self) -> int | None:
        """Number of tokens beyond which a sequence has other rotary frequencies. ``None``: there is none."""
        return next((rope.switch_length for rope in self.ropes if rope.switch_length), None)

    @property
    def features(self) -> frozenset[Feature]:
        """What the model needs beyond Llama, Mistral, Qwen2, Qwen3 and SmolLM3.

        A decoder must support each of them, or leave the model to `CausalLM`, which supports all.
        """
        present: dict[Feature, bool] = {
            "experts": self.experts is not None,
            "activation": self.activation != "silu",
            "several ropes": len(self.ropes) > 1,
            "rope by length": self.long_context_start is not None,
            "partial rotary": self.rotary_dim != self.head_dim,
            "interleaved rotary": self.rope_interleaved,
            "full qk norm": self.qk_norm == "full",
            "no pre norm": not self.pre_norm,
            "post norm": self.post_norm,
            "norm offset": self.norm_offset != 0.0,
            "attention scale": self.attention_scale is not None,
            "attention softcap": self.attention_softcap is not None,
            "logit softcap": self.logit_softcap is not None,
            "embedding scale": self.embedding_scale != 1.0,
            "residual scale": self.residual_scale != 1.0,
            "logit scale": self.logit_scale != 1.0,
        }
        return frozenset(name for name, needed in present.items() if needed)

    def _mlp_width(self, kind: LayerKind) -> int:
        if not kind.sparse or not self.experts:
            return self.intermediate_size
        return self.experts.count * self.experts.intermediate_size + self.experts.shared_intermediate_size


def _never(config: DecoderConfig, index: int) -> bool:  # noqa: ARG001
    return False


def _always(config: DecoderConfig, index: int) -> bool:  # noqa: ARG001
    return True


def _unchanged(config: dict[str, Any]) -> dict[str, Any]:
    return config


class _Family(Struct, frozen=True, kw_only=True):
    """How a model class reads its configuration."""

    sliding: Callable[[DecoderConfig, int], bool] = _never
    """Whether a layer attends to a window."""
    rotary: Callable[[DecoderConfig, int], bool] = _always
    """Whether a layer applies rotary embeddings."""
    defaults: dict[str, Any] = {}
    """Defaults of missing keys, where transformers' differ from those of `DecoderConfig`."""
    aliases: dict[str, str] = {}
    """Other names of keys. A key with an empty name is ignored."""
    fixed: dict[str, Any] = {}
    """Values that override the configuration."""
    reads: tuple[str, ...] = ()
    """Those of `_OPTIONAL` that the class has. The others are ignored."""
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    """Converts older forms of a configuration."""
    partial_rotary: bool = False
    """Whether ``partial_rotary_factor`` applies."""
    extends_context: bool = True
    """Whether ``max_position_embeddings`` is the context length before the extension by `Rope.factor`."""
    scales_embedding: bool = False
    """Whether the embeddings are multiplied by the square root of their size."""
    features: dict[str, Any] = {}
    """Fields of `Architecture`."""


def read_architecture(directory: Path) -> Architecture:
    """Read ``config.json``.

    Raise `UnsupportedModelError` if our own decoders lack the class or a feature of the model, and
    `ModelError` if the configuration is malformed.
    """
    file = directory / "config.json"
    raw = read_json(file, dict[str, Any])
    kind = convert(raw, ModelClass, str(file))
    name = _class_name(kind)
    if kind.text_config and name.endswith("ForConditionalGeneration"):
        tied = {key: raw[key] for key in ("tie_word_embeddings",) if key in raw}
        raw = kind.text_config | tied
    return _architecture(name, raw, file)


def _class_name(kind: ModelClass) -> str:
    names = kind.architectures or [_MODEL_TYPES.get(kind.model_type or "", f"model_type={kind.model_type}")]
    for name in names:
        if name in _FAMILIES:
            return str(name)
    raise UnsupportedModelError(
        f"the torch backend does not support {', '.join(map(str, names))}; supported: {', '.join(_FAMILIES)}"
    )


def _architecture(name: str, raw: dict[str, Any], file: Path) -> Architecture:
    family = _FAMILIES[name]
    ignored = set(_OPTIONAL) - set(family.reads)
    renamed = {family.aliases.get(key, key): value for key, value in raw.items()}
    renamed = {key: value for key, value in renamed.items() if key not in ignored}
    effective = family.prepare(family.defaults | renamed | family.fixed)
    config = convert(effective, DecoderConfig, str(file))
    if config.hidden_act not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UnsupportedModelError(
            f"hidden_act {config.hidden_act!r} is not supported for {name}; supported: {known}"
        )
    if config.use_bidirectional_attention:
        raise UnsupportedModelError(f"{file}: use_bidirectional_attention is not supported")
    if unknown := set(config.layer_types or ()) - LAYER_TYPES:
        raise UnsupportedModelError(f"{file}: the layer type {min(unknown)!r} is not supported")
    types = [_LAYER_TYPE[family.sliding(config, index)] for index in range(config.num_hidden_layers)]
    rope_of = read_ropes(effective, config.max_position_embeddings, types, file)
    ropes = tuple(dict.fromkeys(rope_of.values()))
    longest = [rope.max_positions(config.max_position_embeddings) for rope in ropes]
    max_positions = min(longest) if family.extends_context else config.max_position_embeddings
    if max_positions > MAX_POSITIONS:
        raise ModelError(f"{file}: a context of {max_positions} tokens; at most {MAX_POSITIONS}")
    head_dim = config.head_dim or config.hidden_size // config.num_attention_heads
    bias = config.attention_bias
    return Architecture(
        name=name,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=head_dim,
        norm_eps=config.rms_norm_eps,
        layers=tuple(
            LayerKind(
                window=(config.sliding_window or None) if layer_type == SLIDING else None,
                rotary=family.rotary(config, index),
                rope=ropes.index(rope_of[layer_type]),
                sparse=_is_sparse(config, index),
            )
            for index, layer_type in enumerate(types)
        ),
        ropes=ropes,
        rotary_dim=_rotary_dim(name, ropes, head_dim, file),
        max_positions=max_positions,
        qkv_bias=bias,
        output_bias=bias if config.output_bias is None else config.output_bias,
        mlp_bias=config.mlp_bias,
        activation=_ACTIVATIONS[config.hidden_act],
        experts=_experts(config),
        attention_scale=_attention_scale(config),
        attention_softcap=config.attn_logit_softcapping,
        logit_softcap=config.final_logit_softcapping,
        embedding_scale=config.hidden_size**0.5 if family.scales_embedding else config.embedding_multiplier,
        residual_scale=config.residual_multiplier,
        logit_scale=1 / config.logits_scaling,
        tied=config.tie_word_embeddings,
        **family.features,
    )


def _rotary_dim(name: str, ropes: Collection[Rope], head_dim: int, file: Path) -> int:
    """Return the number of rotated dimensions. Raise `ModelError` if it is odd or differs between layers."""
    factors = {rope.partial_rotary_factor for rope in ropes}
    rotary_dim = int(head_dim * min(factors))
    if len(factors) > 1 or (rotary_dim != head_dim and not _FAMILIES[name].partial_rotary):
        raise UnsupportedModelError(
            f"{file}: partial_rotary_factor is not supported for {name}: heads are rotated completely"
        )
    if len({rope.switch_length for rope in ropes if rope.switch_length}) > 1:
        raise UnsupportedModelError(f"{file}: the rotary frequencies of layers change at different lengths")
    if rotary_dim < 2 or rotary_dim % 2:
        raise ModelError(f"{file}: {rotary_dim} of {head_dim} dimensions can't be rotated in pairs")
    for rope in ropes:
        for key in ("short_factor", "long_factor"):
            if rope.rope_type == "longrope" and len(getattr(rope, key)) != rotary_dim // 2:
                raise ModelError(
                    f"{file}: {key} has {len(getattr(rope, key))} factors for {rotary_dim // 2} frequencies"
                )
    return rotary_dim


def _attention_scale(config: DecoderConfig) -> float | None:
    if config.query_pre_attn_scalar:
        return 1 / math.sqrt(config.query_pre_attn_scalar)
    return config.attention_multiplier


def _experts(config: DecoderConfig) -> ExpertShape | None:
    if not config.num_experts:
        return None
    return ExpertShape(
        count=config.num_experts,
        per_token=config.num_experts_per_tok,
        intermediate_size=config.moe_intermediate_size or config.intermediate_size,
        normalized=config.norm_topk_prob,
        shared_intermediate_size=config.shared_expert_intermediate_size,
    )


def _is_sparse(config: DecoderConfig, index: int) -> bool:
    return (
        config.num_experts > 0
        and index not in (config.mlp_only_layers or ())
        and (index + 1) % config.decoder_sparse_step == 0
    )


def _all_sliding(config: DecoderConfig, index: int) -> bool:  # noqa: ARG001
    return config.use_sliding_window


def _mistral_sliding(config: DecoderConfig, index: int) -> bool:
    """Return whether a layer has a window: all have, unless ``layer_types`` differ, as in Ministral."""
    return _is_sliding(config, index, otherwise=True)


def _qwen_sliding(config: DecoderConfig, index: int) -> bool:
    return _is_sliding(config, index, otherwise=index >= config.max_window_layers)


def _qwen2_moe_sliding(config: DecoderConfig, index: int) -> bool:
    return _is_sliding(config, index, otherwise=index % 2 == 0 and index < config.max_window_layers)


def _gemma_sliding(config: DecoderConfig, index: int) -> bool:
    return _is_sliding(config, index, otherwise=(index + 1) % config.sliding_window_pattern != 0)


def _smollm3_sliding(config: DecoderConfig, index: int) -> bool:
    return _is_sliding(config, index, otherwise=not _smollm3_rotary(config, index))


def _is_sliding(config: DecoderConfig, index: int, *, otherwise: bool) -> bool:
    sliding = config.layer_types[index] == SLIDING if config.layer_types else otherwise
    return sliding and config.use_sliding_window


def _smollm3_rotary(config: DecoderConfig, index: int) -> bool:
    if config.no_rope_layers is not None:
        return bool(config.no_rope_layers[index])
    return (index + 1) % config.no_rope_layer_interval != 0


def _prepare_gemma(config: dict[str, Any]) -> dict[str, Any]:
    """Replace ``gelu``, which means its approximation in old configurations."""
    act = "gelu_pytorch_tanh" if config["hidden_act"] in (None, "gelu") else config["hidden_act"]
    return config | {"hidden_act": act}


def _prepare_gemma3(config: dict[str, Any]) -> dict[str, Any]:
    """Convert the rotary parameters to those of each layer type: only full attention is scaled."""
    keys = ("rope_parameters", "rope_scaling")
    if not all(isinstance(config.get(key) or {}, dict) for key in keys):
        return config  # which is then malformed
    nested, scaling = (config.get(key) or {} for key in keys)
    local, full = nested.get(SLIDING) or {}, nested.get("full_attention") or {}
    if not isinstance(local, dict) or not isinstance(full, dict):
        return config
    full = {"rope_theta": config.get("rope_theta") or 1e6} | full | scaling
    local = {"rope_theta": config.get("rope_local_base_freq") or 1e4} | local
    return _prepare_gemma(config) | {"rope_parameters": {"full_attention": full, SLIDING: local}}


SLIDING = "sliding_attention"
_LAYER_TYPE = {True: SLIDING, False: "full_attention"}
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
"""Activations of transformers. It has several names and implementations of GELU's approximation."""
_EXPERTS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
)
_MULTIPLIERS = ("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling")
_GEMMA_SCALES = ("query_pre_attn_scalar", "final_logit_softcapping")
_SHARED_EXPERT, _ATTENTION_SOFTCAP = "shared_expert_intermediate_size", "attn_logit_softcapping"
_OPTIONAL = (*_EXPERTS, *_MULTIPLIERS, *_GEMMA_SCALES, _SHARED_EXPERT, _ATTENTION_SOFTCAP)
_NO_MLP_BIAS = {"mlp_bias": False}
_NO_BIAS = {"attention_bias": False} | _NO_MLP_BIAS
_GEMMA = {"head_dim": 256, "max_position_embeddings": 8192, "tie_word_embeddings": True}
_GEMMA2 = _GEMMA | {
    "hidden_act": "gelu_pytorch_tanh",
    "num_key_value_heads": 4,
    "sliding_window": 4096,
    "query_pre_attn_scalar": 256,
}
_GEMMA3 = _GEMMA2 | {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "max_position_embeddings": 131_072,
}
_GLM = {
    "head_dim": 128,
    "num_key_value_heads": 2,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1.5625e-07,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
}
_GEMMA3_FAMILY = _Family(
    sliding=_gemma_sliding,
    defaults=_GEMMA3,
    aliases={"hidden_act": "", "hidden_activation": "hidden_act"},
    fixed=_NO_MLP_BIAS | {"use_sliding_window": True},
    reads=_GEMMA_SCALES,
    prepare=_prepare_gemma3,
    extends_context=False,
    scales_embedding=True,
    features={"norm_offset": 1.0, "post_norm": True, "qk_norm": "head"},
)
_FAMILIES: dict[str, _Family] = {
    "LlamaForCausalLM": _Family(),
    "MistralForCausalLM": _Family(
        sliding=_mistral_sliding,
        defaults={"sliding_window": 4096, "num_key_value_heads": 8, "max_position_embeddings": 131_072},
        fixed=_NO_BIAS | {"use_sliding_window": True},
    ),
    "MixtralForCausalLM": _Family(
        sliding=_all_sliding,
        defaults={
            "num_key_value_heads": 8,
            "max_position_embeddings": 131_072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1e6,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
        aliases={"num_local_experts": "num_experts"},
        fixed=_NO_BIAS | {"use_sliding_window": True, "norm_topk_prob": True},
        reads=("num_experts", "num_experts_per_tok"),
    ),
    "Qwen2ForCausalLM": _Family(
        sliding=_qwen_sliding,
        defaults={"num_key_value_heads": 32, "max_position_embeddings": 32_768, "sliding_window": 4096},
        fixed={"attention_bias": True, "output_bias": False} | _NO_MLP_BIAS,
    ),
    "Qwen2MoeForCausalLM": _Family(
        sliding=_qwen2_moe_sliding,
        defaults={
            "num_key_value_heads": 16,
            "max_position_embeddings": 32_768,
            "sliding_window": 4096,
            "attention_bias": True,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        },
        aliases={"attention_bias": "", "qkv_bias": "attention_bias"},
        fixed={"output_bias": False} | _NO_MLP_BIAS,
        reads=(*_EXPERTS, _SHARED_EXPERT),
    ),
    "Qwen3ForCausalLM": _Family(
        sliding=_qwen_sliding,
        defaults={
            "head_dim": 128,
            "num_key_value_heads": 32,
            "max_position_embeddings": 32_768,
            "sliding_window": 4096,
        },
        fixed=_NO_MLP_BIAS,
        features={"qk_norm": "head"},
    ),
    "Qwen3MoeForCausalLM": _Family(
        sliding=_all_sliding,
        defaults={
            "num_key_value_heads": 4,
            "max_position_embeddings": 32_768,
            "sliding_window": 4096,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
        aliases={"num_local_experts": "num_experts"},
        fixed=_NO_MLP_BIAS,
        reads=_EXPERTS,
        features={"qk_norm": "head"},
    ),
    "SmolLM3ForCausalLM": _Family(
        sliding=_smollm3_sliding,
        rotary=_smollm3_rotary,
        defaults={
            "num_key_value_heads": 4,
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": True,
            "rope_theta": 2e6,
        },
    ),
    "GemmaForCausalLM": _Family(
        defaults=_GEMMA | {"hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 16},
        fixed=_NO_MLP_BIAS,
        prepare=_prepare_gemma,
        scales_embedding=True,
        features={"norm_offset": 1.0},
    ),
    "Gemma2ForCausalLM": _Family(
        sliding=_gemma_sliding,
        defaults=_GEMMA2 | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        aliases={"hidden_act": "", "hidden_activation": "hidden_act"},
        fixed=_NO_MLP_BIAS | {"use_sliding_window": True, "sliding_window_pattern": 2},
        reads=(*_GEMMA_SCALES, _ATTENTION_SOFTCAP),
        prepare=_prepare_gemma,
        scales_embedding=True,
        features={"norm_offset": 1.0, "post_norm": True},
    ),
    "Gemma3ForCausalLM": _GEMMA3_FAMILY,
    "Gemma3ForConditionalGeneration": _GEMMA3_FAMILY,
    "Phi3ForCausalLM": _Family(
        sliding=_all_sliding,
        defaults={
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        },
        fixed=_NO_BIAS | {"use_sliding_window": True},
        partial_rotary=True,
    ),
    "GraniteForCausalLM": _Family(defaults={"attention_multiplier": 1.0}, reads=_MULTIPLIERS),
    "Olmo2ForCausalLM": _Family(
        defaults={"rms_norm_eps": 1e-5},
        fixed=_NO_MLP_BIAS,
        features={"qk_norm": "full", "pre_norm": False, "post_norm": True},
    ),
    "GlmForCausalLM": _Family(
        defaults=_GLM,
        fixed=_NO_MLP_BIAS | {"output_bias": False},
        partial_rotary=True,
        features={"rope_interleaved": True},
    ),
    "Glm4ForCausalLM": _Family(
        defaults=_GLM,
        fixed=_NO_MLP_BIAS | {"output_bias": False},
        partial_rotary=True,
        features={"rope_interleaved": True, "post_norm": True},
    ),
}
_MODEL_TYPES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "glm": "GlmForCausalLM",
    "glm4": "Glm4ForCausalLM",
}
"""The class of each ``model_type``, for configurations without ``architectures``."""
