"""The tensors of a model directory: safetensors, whole or in shards, mapped into memory. Never pickle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import read_json

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"


class _Index(Struct):
    weight_map: dict[str, str]


class Checkpoint:
    """Tensors by name, read when asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Any] = {}
        self._files = _index(directory)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def tensor(self, name: str, *shape: int) -> Tensor:
        """The tensor of that name; raises `ModelError` where it is missing, misshapen or of integers."""
        tensor = self.read(name)
        where = f"the weight {name!r} in {self._directory / self._files[name]}"
        if tensor.shape != shape:
            raise ModelError(
                f"{where} has the shape {list(tensor.shape)}; config.json asks for {list(shape)}"
            )
        if not tensor.is_floating_point():
            raise ModelError(f"{where} holds {tensor.dtype}, which are no weights without their scales")
        return tensor

    def read(self, name: str) -> Tensor:
        """The tensor of that name, whatever its shape; raises `ModelError` where it is missing."""
        import safetensors

        if name not in self._files:
            raise ModelError(f"the weights in {self._directory} lack {name!r}")
        try:
            tensor: Tensor = self._reader(self._files[name]).get_tensor(name)
        except (OSError, safetensors.SafetensorError) as error:
            raise ModelError(f"{self._directory / self._files[name]} can't be read: {error}") from error
        return tensor

    def _reader(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = _open(self._directory / file)
        return self._open[file]


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory; raises `ModelError` where there are none."""
    if (directory / INDEX).is_file():
        return [directory / file for file in sorted(set(_shards(directory).values()))]
    if (directory / _WHOLE).is_file():
        return [directory / _WHOLE]
    if any(directory.glob("*.bin")):
        raise ModelError(f"{directory} holds pickled weights (.bin), which are never loaded")
    raise ModelError(f"{directory} has no {_WHOLE} and no {INDEX}")


def check_files(directory: Path) -> None:
    """See, without torch, that they are all there and whole; raises `ModelError`."""
    for file in weight_files(directory):
        _open(file, "np")


def _index(directory: Path) -> dict[str, str]:
    """Names of tensors to names of files."""
    files = weight_files(directory)
    if (directory / INDEX).is_file():
        return _shards(directory)
    return {name: file.name for file in files for name in _open(file).keys()}  # noqa: SIM118


def _shards(directory: Path) -> dict[str, str]:
    return read_json(directory / INDEX, _Index).weight_map


def _open(path: Path, framework: str = "pt") -> Any:
    import safetensors

    try:
        return safetensors.safe_open(path, framework=framework)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
