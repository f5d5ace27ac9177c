"""Write model weights as sharded safetensors files, from numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fllm_backends.checkpoints.safetensors_files import INDEX

SHARD_BYTES = 1024**3
"""Size at which a shard is written."""

_ALIGNMENT = 8


class ShardWriter:
    """Writes tensors of one dtype to a model directory, with at most one shard in memory.

    ``dtype`` is safetensors' name of it, such as ``BF16``. numpy has no bfloat16, so bfloat16 values come as
    uint16 arrays of their bits.
    """

    def __init__(self, directory: Path, dtype: str) -> None:
        self._directory = directory
        self._dtype = dtype
        self._pending: dict[str, np.ndarray] = {}
        self._pending_bytes = 0
        self._files: dict[str, str] = {}

    def add(self, name: str, tensor: np.ndarray) -> None:
        """Append a tensor; write a shard when enough are pending."""
        self._pending[name] = tensor
        self._pending_bytes += tensor.nbytes
        if self._pending_bytes >= SHARD_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write the last shard and the index."""
        self._flush()
        index = {"metadata": {}, "weight_map": self._files}
        (self._directory / INDEX).write_bytes(msgspec.json.format(msgspec.json.encode(index), indent=2))

    def _flush(self) -> None:
        file = f"model-{len(set(self._files.values())) + 1:05}.safetensors"
        _write_file(self._directory / file, self._pending, self._dtype)
        self._files |= dict.fromkeys(self._pending, file)
        self._pending, self._pending_bytes = {}, 0


def _write_file(path: Path, tensors: Mapping[str, np.ndarray], dtype: str) -> None:
    """Write one file: the header's length as uint64, the header as JSON, then the data.

    The format is described at https://huggingface.co/docs/safetensors/index#format.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in sorted(tensors.items()):
        end = offset + tensor.nbytes
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": (offset, end)}
        offset = end
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, tensor in sorted(tensors.items()):
            file.write(np.ascontiguousarray(tensor).data)
