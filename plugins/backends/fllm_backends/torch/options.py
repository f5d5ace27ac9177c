"""What the torch backend was told, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from fllm.config import BackendConfig, Device, LoadFormat
from fllm.errors import ConfigError
from fllm.models import ModelSource, locate

DTYPES = ("auto", "float32", "bfloat16", "float16")
QUANTIZATIONS = ("none", "int8", "fp8")
DEVICES = ("cuda", "cpu")
BACKEND_OPTIONS = {
    "kv_cache_memory": "memory for the KV cache, such as 2GiB",
    "threads": "threads that compute on a cpu",
}
"""``--backend-option KEY=VALUE``: the keys, and what they mean."""

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 1024, "mi": 1024**2, "gi": 1024**3}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?i?)b?", re.IGNORECASE)


class Options(Struct, frozen=True, kw_only=True):
    """The configuration, with its words understood."""

    source: ModelSource
    revision: str | None
    device: Device | None
    """``None``: the best there is."""
    dtype: str
    """``auto``: float32 on a cpu, bfloat16 on cuda."""
    quantization: str | None
    """``None``: int8 where it is faster: on a cpu that has the instructions, unless a dtype is asked for."""
    dummy: bool
    seed: int
    max_model_len: int | None
    kv_cache_memory: int | None
    """Bytes."""
    threads: int | None


def read_options(config: BackendConfig) -> Options:
    """Check a configuration; raises `UserError` naming the option."""
    _check_keys(config.options)
    if config.dtype not in DTYPES:
        raise ConfigError(f"--dtype {config.dtype!r}: the torch backend has {', '.join(DTYPES)}")
    if config.quantization not in (None, *QUANTIZATIONS):
        known = ", ".join(QUANTIZATIONS)
        raise ConfigError(f"--quantization {config.quantization!r}: the torch backend has {known}")
    return Options(
        source=_source(config.model, config.load_format),
        revision=config.revision,
        device=_device(config.devices),
        dtype=config.dtype,
        quantization=config.quantization or ("none" if config.dtype != "auto" else None),
        dummy=config.load_format == "dummy",
        seed=config.seed or 0,
        max_model_len=config.max_model_len,
        kv_cache_memory=_size(config.options.get("kv_cache_memory")),
        threads=_threads(config.options.get("threads")),
    )


def _check_keys(options: Mapping[str, str]) -> None:
    for key in options.keys() - BACKEND_OPTIONS.keys():
        known = "; ".join(f"{name}: {meaning}" for name, meaning in BACKEND_OPTIONS.items())
        raise ConfigError(f"--backend-option {key!r}: the torch backend does not know it ({known})")


def _source(model: str, load_format: LoadFormat) -> ModelSource:
    source = locate(model)
    if (source.kind == "gguf" and load_format == "safetensors") or (
        source.kind != "gguf" and load_format == "gguf"
    ):
        raise ConfigError(f"--load-format {load_format!r}: {model!r} is a {source.kind} model")
    return source


def _device(devices: tuple[Device, ...]) -> Device | None:
    if not devices:
        return None
    device, *more = devices
    if more:
        raise ConfigError("--devices: the torch backend computes on one device")
    if device.kind not in DEVICES:
        raise ConfigError(f"--devices {device.kind!r}: the torch backend serves {', '.join(DEVICES)}")
    return device


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if not match or match[2].lower() not in _UNITS:
        raise ConfigError(f"--backend-option kv_cache_memory={text!r}: a size is meant, such as 2GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _threads(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--backend-option threads={text!r}: a number of threads is meant")
    return int(text)
