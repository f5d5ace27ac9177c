"""Write the weights of a GGUF file for engines that don't read it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from fllm_backends.checkpoints.gguf.extract import extract
from fllm_backends.checkpoints.gguf.metadata import Metadata
from fllm_backends.checkpoints.gguf.weights import GGUFWeights

PART_BYTES = 1 << 30
FLOAT16_FILE = 1
"""GGUF's ``general.file_type`` of a file whose matrices are in float16."""
_DERIVED = "general.architecture", "general.file_type", "general.quantization_version"


def write_once(target: Path, write: Callable[[Path], object]) -> Path:
    """Return a directory; have it written if there is none. One that is not complete is not kept."""
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write(partial)
        partial.rename(target)
    return target


def write_tokenizer(file: Path, directory: Path) -> None:
    """Write the tokenizer, its settings and the configuration in Hugging Face's layout."""
    extract(Metadata(file), directory)


def write_hugging_face(file: Path, directory: Path) -> None:
    """Write a whole model in Hugging Face's layout, in float32: in parts of about a gigabyte."""
    from safetensors.numpy import save_file

    write_tokenizer(file, directory)
    weights = GGUFWeights(Metadata(file))
    part: dict[str, NDArray[np.float32]] = {}
    places: dict[str, str] = {}

    def flush() -> None:
        name = f"model-{len(set(places.values())) + 1:05}.safetensors"
        save_file(
            {key: np.ascontiguousarray(value) for key, value in part.items()},
            directory / name,
            {"format": "pt"},
        )
        places.update(dict.fromkeys(part, name))
        part.clear()

    for name in weights:
        part[name] = weights.read(name)
        if sum(value.nbytes for value in part.values()) > PART_BYTES:
            flush()
    flush()
    (directory / "model.safetensors.index.json").write_text(_index(places))


def _index(places: dict[str, str]) -> str:
    import json

    return json.dumps({"metadata": {}, "weight_map": places})


def write_float16(file: Path, target: Path) -> None:
    """Write a GGUF file again with its matrices in float16 and its vectors in float32."""
    reader = gguf.GGUFReader(file)
    fields = {name: each for name, each in reader.fields.items() if not name.startswith("GGUF.")}
    writer = gguf.GGUFWriter(target, fields["general.architecture"].contents())
    writer.add_file_type(FLOAT16_FILE)
    for name, each in fields.items():
        if name not in _DERIVED:
            item = each.types[1] if len(each.types) > 1 else None
            writer.add_key_value(name, each.contents(), each.types[0], item)
    dtypes = [np.dtype(np.float16 if len(tensor.shape) > 1 else np.float32) for tensor in reader.tensors]
    for tensor, dtype in zip(reader.tensors, dtypes, strict=True):
        shape = [int(size) for size in reversed(tensor.shape)]
        writer.add_tensor_info(tensor.name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, dtype in zip(reader.tensors, dtypes, strict=True):
        writer.write_tensor_data(gguf.dequantize(tensor.data, tensor.tensor_type).astype(dtype))
    writer.close()
