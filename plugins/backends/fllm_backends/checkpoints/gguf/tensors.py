"""A GGUF file's tensors, dequantized, under Hugging Face's names and in its order of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import gguf
import torch
from torch import Tensor

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.metadata import Metadata

_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_PARTS = {
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
_LAYER = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_ROPE_DIVISORS = "rope_freqs.weight"  # they are in the configuration
_INTERLEAVED = ("llama", "smollm3")
"""Architectures whose rotated pairs lie side by side in GGUF; elsewhere they are half a head apart."""


def tensors(metadata: Metadata, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """All tensors, one at a time; raises `ModelError` for a name or a quantization that is not known."""
    for name, tensor in metadata.tensors.items():
        if name == _ROPE_DIVISORS:
            continue
        try:
            values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        except NotImplementedError as error:
            raise ModelError(f"the tensor {name!r} can't be read: {error}") from error
        if heads := _interleaved_heads(metadata, name):
            values = half_apart(values, heads)
        yield _name(name), values.to(dtype).contiguous()


def half_apart(rows: Tensor, heads: int) -> Tensor:
    """Reorder each head's rows 0, 1, 2, 3... as 0, 2, 4... and then 1, 3, 5..."""
    return rows.view(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _name(name: str) -> str:
    if name in _WHOLE:
        return _WHOLE[name]
    match = _LAYER.fullmatch(name)
    if not match or match[2] not in _PARTS:
        raise ModelError(f"the GGUF file has a tensor {name!r} that no model of the Llama family has")
    return f"model.layers.{match[1]}.{_PARTS[match[2]]}.{match[3]}"


def _interleaved_heads(metadata: Metadata, name: str) -> int:
    """Heads of a tensor whose rows must be reordered; 0 for the others."""
    match = _LAYER.fullmatch(name)
    if not match or metadata.architecture not in _INTERLEAVED or match[2] not in ("attn_q", "attn_k"):
        return 0
    heads = metadata.require("{arch}.attention.head_count")
    return int(metadata.get("{arch}.attention.head_count_kv", heads) if match[2] == "attn_k" else heads)
