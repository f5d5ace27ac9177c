"""Find the class of transformers that serves a model directory, by its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from fllm.containment import mapped
from fllm.errors import ModelError, format_error
from fllm.files import read_bounded
from fllm_backends.checkpoints.decoder_config import Count, Length, Size
from fllm_backends.checkpoints.json_files import MAX_JSON_BYTES, convert, read_json

DEFAULT_POSITIONS = 2048
"""Context length of a model that names none, as in vLLM."""
_IGNORED = ("auto_map", "attn_implementation", "experts_implementation", "quantization_config")
"""Keys that select code. Ours runs, whatever they say, and our reader dequantizes the weights."""
_MAX_LAYERS = 10_000
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "dummy"}
"""Types of layers whose keys and values our KV cache holds; a dummy has none of its own."""
_RECURRENT = {"linear_attention", "conv", "hybrid", "hybrid_sliding"}
"""Types of layers with a state for each sequence; hybrid ones have keys and values, too."""
_REFUSED = {
    "minimax": "its lightning attention keeps a cache class of its own",
    "recurrent_gemma": "its recurrent layers keep their states outside of any cache",
}
"""Model types that can't be served, and why, where only the code of the class tells."""


class _ModelType(Struct):
    """The keys of ``config.json`` that are read before transformers reads the rest."""

    model_type: str | None = None
    architectures: list[str] | None = None


class _Sizes(Struct):
    """Sizes of a decoder, within bounds of what is published."""

    vocab_size: Annotated[int, Meta(ge=1, le=2**24)]
    num_hidden_layers: Count
    hidden_size: Size
    max_position_embeddings: Length | None = None


_SIZES = _Sizes.__struct_fields__


@dataclass(frozen=True)
class TransformersModel:
    """A class of transformers with the configuration of a model directory."""

    name: str
    """Name of the class."""
    config: Any
    vocab_size: int
    max_positions: int
    """Context length."""
    recurrent: bool
    """Whether layers keep a state for each sequence."""
    long_context_start: int | None = None
    """See `ModelCard.long_context_start`."""

    @property
    def model_class(self) -> Any:
        """The class itself."""
        import transformers

        return getattr(transformers, self.name)


def read_transformers_model(directory: Path) -> TransformersModel:
    """Read ``config.json``, which imports transformers and torch. Raise `ModelError` if nothing serves it."""
    file = directory / "config.json"
    raw = read_json(file, dict[str, Any])
    kind = convert(raw, _ModelType, str(file))
    with mapped(lambda error: ModelError(f"{file} is invalid: {format_error(error)}"), passing=(ModelError,)):
        config = _read_config(kind, raw, file)
        name = _class_name(kind, config)
        text = config.get_text_config(decoder=True)
        kinds = _layer_types(name, text)
        sizes = convert({key: getattr(text, key, None) for key in _SIZES}, _Sizes, str(file))
    return TransformersModel(
        name=name,
        config=config,
        vocab_size=sizes.vocab_size,
        max_positions=_max_positions(text, sizes),
        recurrent=not kinds.isdisjoint(_RECURRENT),
        long_context_start=_long_context_start(text),
    )


def _read_config(kind: _ModelType, raw: dict[str, Any], file: Path) -> Any:
    """Return transformers' configuration. Code of a model directory is never run."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = kind.model_type
    if model_type is None:
        raise ModelError(f"{file} has no model_type")
    if model_type == "mistral" and "layer_types" in raw:
        model_type = "ministral"  # as transformers' AutoConfig does
    if model_type not in CONFIG_MAPPING:
        raise ModelError(
            f"transformers {transformers.__version__} has no model type {model_type!r}, "
            "and code from a model directory is never run"
        )
    _check_layers(raw, file)
    transformers.logging.set_verbosity_error()  # what is wrong is said in one line
    values: dict[str, Any] = json.loads(read_bounded(file, MAX_JSON_BYTES))
    return CONFIG_MAPPING[model_type].from_dict(_decoded(values))


def _check_layers(value: Any, file: Path) -> None:
    """Raise `ModelError` for a huge number of layers, at any depth: transformers makes lists of them."""
    if isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, int) and "layer" in key and each > _MAX_LAYERS:
                raise ModelError(f"{file}: {key} is {each}; at most {_MAX_LAYERS}")
            _check_layers(each, file)


def _decoded(value: Any) -> Any:
    """Return a configuration without ignored keys, and with infinity where transformers has written it."""
    if isinstance(value, dict) and set(value) == {"__float__"}:
        return float(value["__float__"])
    if isinstance(value, dict):
        return {key: _decoded(each) for key, each in value.items() if key not in _IGNORED}
    return [_decoded(each) for each in value] if isinstance(value, list) else value


def _class_name(kind: _ModelType, config: Any) -> str:
    from transformers.models.auto import modeling_auto as auto

    causal, vision = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    default = causal.get(config.model_type) or vision.get(config.model_type) or config.model_type
    names = kind.architectures or [default]
    if config.is_encoder_decoder:
        raise ModelError(f"{names[0]} can't be served: it is an encoder with a decoder, not a decoder alone")
    for name in names:
        if name in causal.values() or name in vision.values():
            return str(name)
    raise ModelError(
        f"{', '.join(names)} can't be served: transformers has no decoder of this name that generates text"
    )


def _layer_types(name: str, text: Any) -> set[str]:
    """Return the types of the layers' caches. Raise `ModelError` if we can't keep one of them."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    kinds = set(get_layer_types_and_kwargs(text)[0])
    reason = _REFUSED.get(text.model_type)
    if own := sorted(kinds - _ATTENTION - _RECURRENT):
        reason = f"its {', '.join(own)} layers keep a cache of a class of their own"
    if reason:
        raise ModelError(f"{name} can't be served: {reason}")
    return kinds


def _rope(text: Any) -> dict[str, Any]:
    """Return the parameters of the rotary embeddings; none if they are nested by type of layer."""
    rope = getattr(text, "rope_parameters", None) or {}
    nested = [each for each in rope.values() if isinstance(each, dict)]
    if any(each.get("rope_type") == "longrope" for each in nested):
        raise ModelError("rope_parameters: longrope for some types of layers is not supported")
    return {} if nested else rope


def _long_context_start(text: Any) -> int | None:
    """Return the number of tokens beyond which longrope has other factors; None for other ropes."""
    rope = _rope(text)
    return int(rope["original_max_position_embeddings"]) if rope.get("rope_type") == "longrope" else None


def _max_positions(text: Any, sizes: _Sizes) -> int:
    """Return the context length. Some configurations declare the one before an extension."""
    declared = sizes.max_position_embeddings or DEFAULT_POSITIONS
    rope = _rope(text)
    if rope.get("rope_type") == "yarn":
        return max(declared, int(rope["original_max_position_embeddings"] * rope["factor"]))
    if rope.get("rope_type") == "linear" and not text.model_type.startswith("gemma3"):
        return int(declared * rope["factor"])
    return declared
