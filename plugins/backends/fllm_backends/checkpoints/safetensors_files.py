"""Find and check the safetensors files of a model directory, single or sharded. Pickle is never loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from fllm.containment import mapped
from fllm.errors import ModelError
from fllm.files import check_regular
from fllm_backends.checkpoints.json_files import read_json

INDEX = "model.safetensors.index.json"
"""File that maps tensor names to shards."""
_DIGITS = 5
SINGLE_FILE = "model.safetensors"
"""File that holds the weights of a model that is not sharded."""


class TensorHeader(Struct, frozen=True):
    """What the header of a safetensors file says about a tensor."""

    file: str
    dtype: str
    """Type as safetensors names it: ``BF16``, ``F8_E4M3``..."""
    shape: tuple[int, ...]


class _Index(Struct):
    weight_map: dict[str, str]


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a model directory; raise `ModelError` if there are none."""
    if (directory / INDEX).is_file():
        return [directory / file for file in sorted(set(_weight_map(directory).values()))]
    if (directory / SINGLE_FILE).is_file():
        return [directory / SINGLE_FILE]
    if shards := sorted(directory.glob("model-*-of-*.safetensors")):
        return _complete(shards)
    if any(directory.glob("*.bin")):
        raise ModelError(f"{directory} holds pickled weights (.bin), which are never loaded")
    raise ModelError(f"{directory} has no {SINGLE_FILE} and no {INDEX}")


def _complete(shards: list[Path]) -> list[Path]:
    """Return the shards of a model without an index; raise `ModelError` if one is missing."""
    count = shards[0].stem.rpartition("-of-")[2]
    total = int(count) if count.isdecimal() and len(count) == _DIGITS else 0
    expected = [f"model-{part:0{_DIGITS}}-of-{count}.safetensors" for part in range(1, total + 1)]
    missing = sorted(set(expected) ^ {shard.name for shard in shards})
    if missing:
        raise ModelError(f"{shards[0].parent} has no {INDEX}, and not all shards: see {missing[0]}")
    return shards


def tensor_headers(directory: Path) -> dict[str, TensorHeader]:
    """Return the headers of all tensors of a model directory by name.

    The index may name tensors that the files lack, and leave out others. Raise `ModelError` if a file is
    missing, truncated or invalid.
    """
    headers: dict[str, TensorHeader] = {}
    for file in weight_files(directory):
        opened = open_safetensors(file, "np")
        for name in opened.keys():  # noqa: SIM118
            tensor = opened.get_slice(name)
            headers[name] = TensorHeader(file.name, tensor.get_dtype(), tuple(tensor.get_shape()))
    return headers


def describe_missing(directory: Path, name: str) -> str:
    """Return the error of a tensor that no file has, with the file that the index names for it."""
    indexed = _weight_map(directory).get(name) if (directory / INDEX).is_file() else None
    place = f", which {INDEX} places in {indexed}" if indexed else ""
    return f"the weights in {directory} lack {name!r}{place}"


def open_safetensors(path: Path, framework: Literal["np", "pt"]) -> Any:
    """Map a file into memory. ``framework`` selects the type of its tensors: numpy's or torch's.

    Raise `ModelError` if the file can't be read.
    """
    import safetensors

    try:
        check_regular(path)
        with mapped(lambda error: ModelError(f"{path} can't be read: {error}"), base_exceptions=True):
            return safetensors.safe_open(path, framework=framework)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}") from error


def _weight_map(directory: Path) -> dict[str, str]:
    files = read_json(directory / INDEX, _Index).weight_map
    for name in files.values():
        if name != Path(name).name or not name.endswith(".safetensors"):
            raise ModelError(f"{directory / INDEX} names {name!r}: files must be .safetensors next to it")
    return files
