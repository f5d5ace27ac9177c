"""Find the weights of a GGUF model under Hugging Face's names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tensors import TensorRows

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


class GGUFWeights:
    """The weights of a model by Hugging Face's names; each is read on request.

    Raise `ModelError` for a tensor without a name.
    """

    def __init__(self, metadata: Metadata) -> None:
        self.file = metadata.files[0]
        self._metadata = metadata
        self._rows = {
            _huggingface_name(name): TensorRows(name, tensor, heads=_interleaved_heads(metadata, name))
            for name, tensor in metadata.tensors.items()
            if name != _ROPE_DIVISORS
        }

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def matrix(self, name: str, *shape: int) -> TensorRows:
        """Return a weight matrix; raise `ModelError` if it is missing or misshapen."""
        if name not in self._rows:
            raise ModelError(f"the weights in {self.file} lack {name!r}")
        rows = self._rows[name]
        if rows.shape != shape:
            raise ModelError(
                f"the weight {rows.name!r} in {self.file} has the shape {list(rows.shape)}; "
                f"its keys require {list(shape)}"
            )
        return rows

    def vector(self, name: str, size: int) -> NDArray[np.float32]:
        """Return a norm's weights or a bias, [size]; raise `ModelError` if it is missing or misshapen."""
        rows = self.matrix(name, 1, size)
        values: NDArray[np.float32] = rows.rows(0, 1)[0]
        heads = _interleaved_heads(self._metadata, rows.name)
        return values.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1) if heads else values


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
