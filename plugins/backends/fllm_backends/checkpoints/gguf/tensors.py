"""Dequantize the tensors of a GGUF file, under Hugging Face's names and in its order of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import gguf
import numpy as np

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.metadata import Metadata

DTYPES = {
    "float32": gguf.GGMLQuantizationType.F32,
    "float16": gguf.GGMLQuantizationType.F16,
    "bfloat16": gguf.GGMLQuantizationType.BF16,
}
"""Types of converted weights. Their names in GGML are those in safetensors, too."""

_MODEL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_ROPE_DIVISORS = "rope_freqs.weight"  # `gguf.config` writes them to config.json
_INTERLEAVED = ("llama", "smollm3")
"""Architectures whose rotary pairs are adjacent rows in GGUF. In others they are half a head apart."""


def convert_tensors(metadata: Metadata, dtype: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the values of each tensor, converted to ``dtype``.

    numpy has no bfloat16, so bfloat16 values are uint16 arrays of their bits.
    Raise `ModelError` for an unknown name or quantization.
    """
    for name, tensor in metadata.tensors.items():
        if name == _ROPE_DIVISORS:
            continue
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise ModelError(f"the tensor {name!r} can't be read: {error}") from error
        if heads := _interleaved_heads(metadata, name):
            values = _deinterleave(values, heads)
        with np.errstate(over="ignore"):  # what float16 can't hold becomes infinite
            converted = gguf.quants.quantize(np.ascontiguousarray(values), DTYPES[dtype])
        yield _huggingface_name(name), converted.view(np.uint16) if dtype == "bfloat16" else converted


def _deinterleave(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of each head from 0, 1, 2, 3, ... to 0, 2, 4, ..., 1, 3, 5, ..."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _huggingface_name(name: str) -> str:
    if name in _MODEL_TENSORS:
        return _MODEL_TENSORS[name]
    match = _LAYER_NAME.fullmatch(name)
    if not match or match[2] not in _LAYER_TENSORS:
        raise ModelError(f"the GGUF file has a tensor {name!r}, which no model of the Llama family has")
    return f"model.layers.{match[1]}.{_LAYER_TENSORS[match[2]]}.{match[3]}"


def _interleaved_heads(metadata: Metadata, name: str) -> int:
    """Return the number of heads of a tensor whose rows are interleaved; 0 for other tensors."""
    match = _LAYER_NAME.fullmatch(name)
    if not match or metadata.architecture not in _INTERLEAVED or match[2] not in ("attn_q", "attn_k"):
        return 0
    heads = metadata.require("{arch}.attention.head_count")
    return int(metadata.get("{arch}.attention.head_count_kv", heads) if match[2] == "attn_k" else heads)
