"""Derive ``config.json`` and ``generation_config.json`` from the keys of a GGUF file."""

from __future__ import annotations

from typing import Any

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.families import FAMILIES, FULL, SLIDING, family
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tensors import TensorRows

ROPE_DIVISORS = "rope_freqs.weight"
ROPE_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
"""Tensors that are part of the configuration."""
_END_OF_TURN = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>"),
    *("<|return|>", "<|call|>", "<|observation|>", "<|end|>"),
)
"""Further EOS tokens. GGUF names one, but models have several."""


def config(metadata: Metadata) -> dict[str, Any]:
    """Return the content of ``config.json``. Raise `ModelError` for an unsupported architecture."""
    kind = family(metadata)
    if kind is None:
        raise ModelError(
            f"the GGUF architecture {metadata.architecture!r} is not supported; supported: "
            + ", ".join(FAMILIES)
        )
    if "token_embd.weight" not in metadata.tensors:
        raise ModelError("the GGUF file holds a vocabulary but no weights")
    hidden = metadata.require("{arch}.embedding_length")
    heads = metadata.require("{arch}.attention.head_count")
    head_dim = metadata.get("{arch}.attention.key_length", hidden // heads)
    positions = metadata.require("{arch}.context_length")
    return {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "vocab_size": int(metadata.tensors["token_embd.weight"].shape[0]),
        "hidden_size": hidden,
        "intermediate_size": metadata.require("{arch}.feed_forward_length"),
        "num_hidden_layers": metadata.require("{arch}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("{arch}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": positions,
        "rms_norm_eps": metadata.require("{arch}.attention.layer_norm_rms_epsilon"),
        "hidden_act": "silu",
        "attention_bias": "blk.0.attn_q.bias" in metadata.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in metadata.tensors,
        "tie_word_embeddings": "output.weight" not in metadata.tensors,
        "rope_parameters": _rope_by_layer(metadata, head_dim, positions),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    } | kind.settings(metadata)


def generation_config(metadata: Metadata) -> dict[str, Any]:
    """Return the content of ``generation_config.json``: all EOS tokens."""
    tokens = metadata.require("tokenizer.ggml.tokens")
    ends = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    ids = {token: index for index, token in enumerate(tokens)}
    ends += [ids[name] for name in _END_OF_TURN if name in ids and not _ends_a_channel(name, ids)]
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)),
    }


def _ends_a_channel(name: str, ids: dict[str, int]) -> bool:
    """Return whether a token ends a message, but not the response, as in gpt-oss."""
    return name == "<|end|>" and "<|return|>" in ids


def _rope_by_layer(metadata: Metadata, head_dim: int, positions: int) -> dict[str, Any]:
    """Return the rotary parameters; of Gemma 3, those of each kind of layer."""
    rope = _rope(metadata, head_dim, positions)
    if metadata.architecture != "gemma3":
        return rope
    local = metadata.get("{arch}.rope.freq_base_swa", 10000.0)
    return {FULL: rope, SLIDING: {"rope_type": "default", "rope_theta": local}}


def _rope(metadata: Metadata, head_dim: int, positions: int) -> dict[str, Any]:
    rope = {
        "rope_type": "default",
        "rope_theta": metadata.get("{arch}.rope.freq_base", 10000.0),
        "partial_rotary_factor": metadata.get("{arch}.rope.dimension_count", head_dim) / head_dim,
    }
    original = metadata.get("{arch}.rope.scaling.original_context_length", positions)
    longrope = {"rope_type": "longrope", "original_max_position_embeddings": original}
    if ROPE_DIVISORS in metadata.tensors:  # Llama 3.1: the divisors themselves instead of the parameters
        divisors = _values(metadata, ROPE_DIVISORS)
        return rope | longrope | {"short_factor": divisors, "long_factor": divisors, "attention_factor": 1.0}
    if all(name in metadata.tensors for name in ROPE_FACTORS):  # Phi 3
        short, long = (_values(metadata, name) for name in ROPE_FACTORS)
        factor = metadata.get("{arch}.rope.scaling.attn_factor")
        rope |= longrope | {"short_factor": short, "long_factor": long, "factor": positions / original}
        return rope if factor is None else rope | {"attention_factor": factor}
    kind = metadata.get("{arch}.rope.scaling.type", "none")
    if kind == "none":
        return rope
    scaling = {"rope_type": kind, "factor": metadata.require("{arch}.rope.scaling.factor")}
    if metadata.architecture == "gpt-oss":
        scaling |= {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    return rope | scaling | {"original_max_position_embeddings": original}


def _values(metadata: Metadata, name: str) -> list[float]:
    values: list[float] = TensorRows(name, metadata.tensors[name]).rows(0, 1)[0].tolist()
    return values
