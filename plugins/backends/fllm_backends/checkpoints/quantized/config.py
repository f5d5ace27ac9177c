"""Read from its configuration how a checkpoint is quantized. Refuse what can't be dequantized exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import convert, read_object

READABLE = (
    "fp8",
    "fbgemm_fp8",
    "compressed-tensors",
    "modelopt",
    "gptq",
    "awq",
    "auto-round",
    "mxfp4",
    "bitsandbytes",
    "quark",
)
"""Values of ``quant_method`` whose checkpoints are read."""
Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**20)]

_MODELOPT_FILE = "hf_quant_config.json"
_MODELOPT = ("fp8", "fp8_per_channel_per_token", "fp8_pb_wo", "nvfp4", "mxfp4", "mixed_precision")
_COMPRESSED = (
    "dense",
    "float-quantized",
    "int-quantized",
    "naive-quantized",
    "pack-quantized",
    "nvfp4-pack-quantized",
    "mxfp4-pack-quantized",
    "mixed-precision",
)


class QuantizationConfig(Struct, frozen=True, kw_only=True):
    """How the weights of a checkpoint are quantized, as far as the tensors themselves do not tell."""

    method: str
    """``quant_method``, one of `READABLE`."""
    values: Literal["float8", "int8"] | None = None
    """Type of the stored values, if devices compute with it."""
    has_grids: bool = False
    """Whether the values are integers of a few bits, in groups with a scale."""
    block_shape: tuple[int, int] | None = None
    """Rows and columns that share a scale, if there are such blocks."""
    awq_order: bool = False
    """Whether packed integers are in AWQ's order."""
    zero_offset: int = 1
    """What GPTQ subtracted from the zero points that it stored."""
    quantized_cache: bool = False
    """Whether the configuration asks for a quantized KV cache."""


class _BlockShape(Struct):
    shape: tuple[Size, Size]


class _Options(Struct):
    """The keys of ``quantization_config`` that are used."""

    quant_method: str | None = None
    quant_algo: str | None = None
    kv_cache_quant_algo: str | None = None
    kv_cache_scheme: dict[str, Any] | None = None
    weight_block_size: tuple[Size, Size] | None = None
    checkpoint_format: str | None = None
    packing_format: str | None = None
    version: str | None = None
    format: str | None = None
    config_groups: dict[str, Any] | None = None
    sparsity_config: dict[str, Any] | None = None
    transform_config: dict[str, Any] | None = None


def read_quantization(directory: Path) -> QuantizationConfig | None:
    """Return how the checkpoint says that it is quantized; ``None`` if it does not say so.

    ModelOpt writes a file of its own, and earlier versions nothing else. Raise `ModelError` if the torch
    backend can't read such weights.
    """
    file = directory / "config.json"
    config = read_object(file)
    for part in (config, config.get("text_config") or {}):
        for key in ("quantization_config", "compression_config"):
            if isinstance(part, dict) and part.get(key):
                return _parse(part[key], f"{file}: invalid {key}")
    file = directory / _MODELOPT_FILE
    if options := read_object(file).get("quantization"):
        named = {"quant_method": "modelopt"} | convert(options, dict[str, Any], str(file))
        return _parse(named, f"{file}: invalid quantization") if named.get("quant_algo") else None
    return None


def _parse(raw: Any, where: str) -> QuantizationConfig:
    values = convert(raw, dict[str, Any], where)
    nested = values.get("quantization")  # of ModelOpt
    options = convert(values | (nested if isinstance(nested, dict) else {}), _Options, where)
    method = _method(options, values)
    check = {"modelopt": _check_modelopt, "compressed-tensors": _check_compressed, "awq": _check_awq}
    if method not in READABLE:
        raise ModelError(
            f"the weights are quantized with {method}, which the torch backend can't read; it reads "
            f"{', '.join(READABLE)}"
        )
    if method in check:
        check[method](options)
    packing = (options.packing_format or "").lower()
    if method == "auto-round" and not packing.endswith(("gptq", "awq")):
        raise ModelError(f"auto-round's packing_format {packing!r} can't be read; auto_gptq and auto_awq can")
    return QuantizationConfig(
        method=method,
        values=_values(method, options),
        has_grids=method in ("gptq", "awq", "auto-round") or options.format == "pack-quantized",
        block_shape=_block_shape(options, where),
        awq_order=method == "awq" or packing.endswith("awq"),
        zero_offset=0 if options.checkpoint_format == "gptq_v2" else 1,
        quantized_cache=bool(options.kv_cache_scheme or options.kv_cache_quant_algo),
    )


def normalized_method(name: str) -> str:
    """Return one name for all variants of a method, such as ``gptq`` for ``gptq_marlin``."""
    method = name.lower().removesuffix("_marlin").replace("_", "-")
    if method.startswith("modelopt"):
        return "modelopt"
    return {"fbgemm-fp8": "fbgemm_fp8", "gpt-oss-mxfp4": "mxfp4", "inc": "auto-round"}.get(method, method)


def _method(options: _Options, values: Mapping[str, Any]) -> str:
    if options.quant_method:
        return normalized_method(options.quant_method)
    if options.quant_algo:
        return "modelopt"
    if values.get("load_in_4bit") or values.get("load_in_8bit"):
        return "bitsandbytes"
    return "compressed-tensors" if options.config_groups else "an unknown method"


def _values(method: str, options: _Options) -> Literal["float8", "int8"] | None:
    if (
        method in ("fp8", "fbgemm_fp8", "quark")
        or (options.quant_algo or "").lower().startswith("fp8")
        or options.format == "float-quantized"
    ):
        return "float8"
    return "int8" if options.format == "int-quantized" else None


def _check_modelopt(options: _Options) -> None:
    if options.quant_algo and options.quant_algo.lower() not in _MODELOPT:
        known = ", ".join(_MODELOPT).upper()
        raise ModelError(f"modelopt's quant_algo {options.quant_algo!r} can't be read; {known} can")


def _check_compressed(options: _Options) -> None:
    if options.format and options.format not in _COMPRESSED:
        known = ", ".join(_COMPRESSED)
        raise ModelError(f"compressed-tensors' format {options.format!r} can't be read; {known} can")
    if (options.sparsity_config or {}).get("format", "dense") != "dense":
        raise ModelError("sparse weights (compressed-tensors' sparsity_config) can't be read")
    if (options.transform_config or {}).get("config_groups"):
        raise ModelError("rotated activations (compressed-tensors' transform_config) are not supported")


def _check_awq(options: _Options) -> None:
    if options.version and options.version.lower() != "gemm":
        raise ModelError(f"awq's version {options.version!r} can't be read; gemm can")


def _block_shape(options: _Options, where: str) -> tuple[int, int] | None:
    shape: Any = options.weight_block_size
    for group in (options.config_groups or {}).values():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict):
            shape = shape or weights.get("block_structure")
    if isinstance(shape, str):  # compressed-tensors once wrote 128x128
        shape = [int(size) if size.isdecimal() else size for size in shape.split("x")]
    if shape is None:
        return None
    return convert({"shape": shape}, _BlockShape, f"{where}: block size").shape
