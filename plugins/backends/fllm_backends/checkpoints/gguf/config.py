"""Derive ``config.json`` and ``generation_config.json`` from the keys of a GGUF file."""

from __future__ import annotations

from typing import Any

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tensors import TensorRows

CLASSES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
    "smollm3": ("SmolLM3ForCausalLM", "smollm3"),
}
"""GGUF's architectures with Hugging Face's class and model type. In GGUF, Mistral is a llama."""

_ROPE_DIVISORS = "rope_freqs.weight"
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>")
"""Further EOS tokens. GGUF names one, but models have several."""


def config(metadata: Metadata) -> dict[str, Any]:
    """Return the content of ``config.json``. Raise `ModelError` for an unsupported architecture."""
    if metadata.architecture not in CLASSES or metadata.get("{arch}.expert_count"):
        kind = "mixture of experts" if metadata.architecture in CLASSES else metadata.architecture
        raise ModelError(f"the GGUF architecture {kind!r} is not supported; supported: {', '.join(CLASSES)}")
    name, model_type = CLASSES[metadata.architecture]
    if "token_embd.weight" not in metadata.tensors:
        raise ModelError("the GGUF file holds a vocabulary but no weights")
    hidden = metadata.require("{arch}.embedding_length")
    heads = metadata.require("{arch}.attention.head_count")
    head_dim = metadata.get("{arch}.attention.key_length", hidden // heads)
    positions = metadata.require("{arch}.context_length")
    return {
        "architectures": [name],
        "model_type": model_type,
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
        "rope_parameters": _rope(metadata, head_dim, positions),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def generation_config(metadata: Metadata) -> dict[str, Any]:
    """Return the content of ``generation_config.json``: all EOS tokens."""
    tokens = metadata.require("tokenizer.ggml.tokens")
    ends = [metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    ends += [tokens.index(name) for name in _END_OF_TURN if name in tokens]
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)),
    }


def _rope(metadata: Metadata, head_dim: int, positions: int) -> dict[str, Any]:
    rope = {
        "rope_type": "default",
        "rope_theta": metadata.get("{arch}.rope.freq_base", 10000.0),
        "partial_rotary_factor": metadata.get("{arch}.rope.dimension_count", head_dim) / head_dim,
    }
    kind = metadata.get("{arch}.rope.scaling.type", "none")
    original = metadata.get("{arch}.rope.scaling.original_context_length", positions)
    if divisor := metadata.tensors.get(_ROPE_DIVISORS):  # Llama 3.1: the result instead of the parameters
        divisors = TensorRows(_ROPE_DIVISORS, divisor).rows(0, 1)[0].tolist()
        rope |= {"rope_type": "longrope", "short_factor": divisors, "long_factor": divisors}
        return rope | {"attention_factor": 1.0, "original_max_position_embeddings": positions}
    if kind == "none":
        return rope
    scaling = {"rope_type": kind, "factor": metadata.require("{arch}.rope.scaling.factor")}
    return rope | scaling | {"original_max_position_embeddings": original}
