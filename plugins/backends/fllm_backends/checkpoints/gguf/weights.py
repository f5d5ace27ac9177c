"""Find the weights of a GGUF model under Hugging Face's names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fllm.errors import ModelError
from fllm_backends.checkpoints.gguf.config import ROPE_DIVISORS, ROPE_FACTORS
from fllm_backends.checkpoints.gguf.families import LAYER_TENSORS, SINKS, family
from fllm_backends.checkpoints.gguf.header import TensorInfo
from fllm_backends.checkpoints.gguf.merged_experts import MergedExperts, merge_experts
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.tensors import TensorRows

Floats = NDArray[np.float32]

_MODEL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+?)(?:\.(\d+))?\.(weight|bias)")
"""Name of a layer's tensor. The number after it is an expert, which has a tensor of its own in old files."""
_IGNORED = (ROPE_DIVISORS, *ROPE_FACTORS)


class GGUFWeights:
    """The weights of a model by Hugging Face's names; each is read on request.

    Raise `ModelError` for a tensor without a name.
    """

    def __init__(self, metadata: Metadata) -> None:
        kind = family(metadata)
        assert kind, "the configuration was checked"
        self.file = metadata.files[0]
        self._metadata = metadata
        self._family = kind
        self._modules = LAYER_TENSORS | kind.tensors
        self._rows: dict[str, TensorRows] = {}
        for name, tensor in metadata.tensors.items():
            if name not in _IGNORED:
                self._rows |= self._named(name, tensor)
        self._merged: dict[str, MergedExperts] = {}
        if kind.merges_experts:
            self._merged = merge_experts(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter((*self._rows, *self._merged))

    def __contains__(self, name: object) -> bool:
        return name in self._rows or name in self._merged

    def matrix(self, name: str, *shape: int) -> TensorRows:
        """Return a weight matrix; raise `ModelError` if it is missing or misshapen."""
        rows = self._find(name)
        if rows.shape != shape:
            raise ModelError(
                f"the weight {rows.name!r} in {self.file} has the shape {list(rows.shape)}; "
                f"its keys require {list(shape)}"
            )
        return rows

    def vector(self, name: str, size: int) -> Floats:
        """Return a norm's weights or a bias, [size]; raise `ModelError` if it is missing or misshapen."""
        self.matrix(name, 1, size)
        return self.read(name).reshape(-1)

    def read(self, name: str) -> Floats:
        """Return a weight of any shape; raise `ModelError` if it is missing."""
        stored = self.stored(name)
        if isinstance(stored, MergedExperts):
            return stored.read(0, stored.shape[0])
        return stored if isinstance(stored, np.ndarray) else stored.rows(0, stored.shape[0])

    def stored(self, name: str) -> Floats | TensorRows | MergedExperts:
        """Return a weight of any shape; matrices stay in the file. Raise `ModelError` if it is missing."""
        if name in self._merged:
            return self._merged[name]
        rows = self._find(name)
        if len(rows.tensor.shape) > 1 or name.endswith("_gate.weight"):
            return rows
        return self._adjust(rows, name, rows.rows(0, rows.shape[0]).reshape(-1))

    def _find(self, name: str) -> TensorRows:
        if name not in self._rows:
            raise ModelError(f"the weights in {self.file} lack {name!r}")
        return self._rows[name]

    def _adjust(self, rows: TensorRows, name: str, values: Floats) -> Floats:
        """Return a norm without its offset, and a bias in the order of heads that the class has."""
        if self._family.norm_offset and name.endswith("norm.weight"):
            return values - np.float32(self._family.norm_offset)
        heads = self._interleaved_heads(rows.name)
        return values.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1) if heads else values

    def _named(self, name: str, tensor: TensorInfo) -> dict[str, TensorRows]:
        """Return the tensor by its name, or each of its experts by theirs."""
        if name in _MODEL_TENSORS:
            return {_MODEL_TENSORS[name]: TensorRows(name, tensor)}
        match = _LAYER_NAME.fullmatch(name)
        layer, kind, expert, suffix = match.groups() if match else ("", "", "", "")
        module = self._modules.get(f"{kind}_exps" if expert else kind)
        if not module:
            raise ModelError(f"the GGUF file has a tensor {name!r}, which {self._family.name} does not have")
        target = f"model.layers.{layer}.{module}" + (f".{suffix}" if module != SINKS else "")
        if "{}" not in module:
            return {target: TensorRows(name, tensor, heads=self._interleaved_heads(name))}
        if expert:
            return {target.format(expert): TensorRows(name, tensor)}
        count = tensor.rows // tensor.shape[0]
        return {
            target.format(index): TensorRows(name, tensor, first=index * count, count=count)
            for index in range(tensor.shape[0])
        }

    def _interleaved_heads(self, name: str) -> int:
        """Return the number of heads of a tensor whose rows are interleaved; 0 for other tensors."""
        match = _LAYER_NAME.fullmatch(name)
        if not match or not self._family.interleaved or match[2] not in ("attn_q", "attn_k"):
            return 0
        heads = self._metadata.require("{arch}.attention.head_count")
        own = self._metadata.get("{arch}.attention.head_count_kv", heads) if match[2] == "attn_k" else heads
        return int(own)
