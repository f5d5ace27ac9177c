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
_SINGLE_FILE = "model.safetensors"


class _Index(Struct):
    weight_map: dict[str, str]


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of a model directory; raise `ModelError` if there are none."""
    if (directory / INDEX).is_file():
        return [directory / file for file in sorted(set(_weight_map(directory).values()))]
    if (directory / _SINGLE_FILE).is_file():
        return [directory / _SINGLE_FILE]
    if any(directory.glob("*.bin")):
        raise ModelError(f"{directory} holds pickled weights (.bin), which are never loaded")
    raise ModelError(f"{directory} has no {_SINGLE_FILE} and no {INDEX}")


def check_weight_files(directory: Path) -> None:
    """Raise `ModelError` if a weight file is missing or truncated. This does not import torch."""
    for file in weight_files(directory):
        open_safetensors(file, "np")


def tensor_files(directory: Path) -> dict[str, str]:
    """Return the file name of each tensor of a model directory, by tensor name."""
    files = weight_files(directory)
    if (directory / INDEX).is_file():
        return _weight_map(directory)
    return {name: file.name for file in files for name in open_safetensors(file, "np").keys()}  # noqa: SIM118


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
