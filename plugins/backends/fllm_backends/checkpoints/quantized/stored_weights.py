"""Find the tensors that hold each weight of a checkpoint, by their names and types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Literal

from msgspec import Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.quantized.config import read_quantization
from fllm_backends.checkpoints.safetensors_files import TensorHeader, tensor_headers

Format = Literal[
    "plain", "scaled", "gptq", "awq", "packed", "mxfp4", "nvfp4", "bitsandbytes_4bit", "bitsandbytes_8bit"
]
"""How a weight is stored. ``scaled``: float8 or int8 with scales; ``packed``: as compressed-tensors does."""


class StoredWeight(Struct, frozen=True):
    """A weight, and the tensors that hold it."""

    name: str
    """The name that the weight has in a checkpoint that is not quantized."""
    format: Format
    parts: dict[str, str]
    """Names of the tensors by role: ``values``, ``scale``..."""

    def count_values(self, tensors: Mapping[str, TensorHeader]) -> int:
        """Return how many values the weight has, once it is dequantized."""
        stored = prod(tensors[self.parts["values"]].shape)
        if self.format == "gptq":
            zero_point, scale = (tensors[self.parts[role]].shape for role in ("zero_point", "scale"))
            return stored * scale[-1] // zero_point[-1] if scale and zero_point and zero_point[-1] else stored
        return stored * _VALUES_PER_ELEMENT.get(self.format, 1)


_VALUES_PER_ELEMENT = {"awq": 8, "packed": 8, "mxfp4": 2, "nvfp4": 2, "bitsandbytes_4bit": 2}
FLOAT8 = ("F8_E4M3", "F8_E5M2")
_SCALES = ("_scale", "_scale_inv")
_CACHE_SCALES = (
    ".k_scale",
    ".v_scale",
    ".kv_scale",
    ".q_scale",
    ".prob_scale",
    ".k_zero_point",
    ".v_zero_point",
    "k_proj.output_scale",
    "v_proj.output_scale",
)
_ACTIVATION_SCALES = (
    "input_scale",
    "input_scale_inv",
    "input_zero_point",
    "input_global_scale",
    "activation_scale",
    "act_scale",
    "output_scale",
    "input_scale_ub",
    "weight_format",
)
_BITSANDBYTES = {
    "absmax": "absmax",
    "quant_map": "codebook",
    "nested_absmax": "nested_absmax",
    "nested_quant_map": "nested_codebook",
}


def read_stored_weights(directory: Path) -> tuple[dict[str, StoredWeight], dict[str, TensorHeader]]:
    """Return the weights of a model directory and the headers of its tensors. Raise `ModelError`."""
    config, headers = read_quantization(directory), tensor_headers(directory)
    return stored_weights(headers, awq_order=config is not None and config.awq_order), headers


def stored_weights(
    tensors: Mapping[str, TensorHeader], *, awq_order: bool = False
) -> dict[str, StoredWeight]:
    """Return all weights by name. Raise `ModelError` if float8 values have no scales.

    ``awq_order`` says whether packed integers are AWQ's. Scales of activations and of the KV cache are
    left out: neither is quantized.
    """
    weights = {}
    used: set[str] = set()
    for name, header in tensors.items():
        weight = _quantized(name, header, tensors, awq_order)
        if weight:
            weights[weight.name] = weight
            used |= set(weight.parts.values())
    for name in tensors:
        if name not in used and not is_scale_of_activations(name):
            weights[name] = StoredWeight(name, "plain", {"values": name})
    return weights


def cache_scales(tensors: Iterable[str]) -> list[str]:
    """Return the names of those tensors that are scales of a quantized KV cache."""
    return [name for name in tensors if name.endswith(_CACHE_SCALES)]


def is_scale_of_activations(name: str) -> bool:
    """Return whether a tensor is a scale that only quantized activations or a quantized KV cache need."""
    return name.endswith(_CACHE_SCALES) or name.rpartition(".")[2] in _ACTIVATION_SCALES


def _quantized(
    name: str, header: TensorHeader, tensors: Mapping[str, TensorHeader], awq_order: bool
) -> StoredWeight | None:
    """Return the quantized weight that begins with this tensor, if it is one."""
    module, _, last = name.rpartition(".")
    if last == "qweight":
        return _gptq_or_awq(module, tensors, awq_order)
    if last == "weight_packed":
        return _compressed(module, header, tensors)
    if last.endswith("_blocks") and name.removesuffix("_blocks") + "_scales" in tensors:
        base = name.removesuffix("_blocks")
        return StoredWeight(base, "mxfp4", {"values": name, "scale": f"{base}_scales"})
    if f"{module}.pre_quant_scale" in tensors:
        raise ModelError(f"{module!r} scales its inputs (pre_quant_scale), which is not supported")
    if header.dtype == "U8":
        return _packed_bytes(name, module, tensors)
    if header.dtype == "I8" and f"{module}.SCB" in tensors:
        unused = {"format": f"{module}.weight_format"} if f"{module}.weight_format" in tensors else {}
        return StoredWeight(name, "bitsandbytes_8bit", {"values": name, "scale": f"{module}.SCB"} | unused)
    if header.dtype in FLOAT8 or header.dtype == "I8":
        return _scaled(name, header, tensors)
    return None


def _scaled(name: str, header: TensorHeader, tensors: Mapping[str, TensorHeader]) -> StoredWeight | None:
    candidates = [f"{name}{suffix}" for suffix in _SCALES]
    candidates += [f"{name.rpartition('.')[0]}.scale"]  # as DeepSeek's own code names it
    scale = next((candidate for candidate in candidates if candidate in tensors), None)
    if scale is None and name.endswith(_SCALES):
        return None  # a scale in float8 itself
    if scale is None:
        if header.dtype == "I8":
            return None  # refused when it is read as a weight
        raise ModelError(
            f"the weight {name!r} in {header.file} is of type {header.dtype}, and there is no {name}_scale: "
            "float8 weights can't be read without their scales"
        )
    parts = {"values": name, "scale": scale}
    if (zero_point := f"{name}_zero_point") in tensors:
        parts["zero_point"] = zero_point
    return StoredWeight(name, "scaled", parts)


def _gptq_or_awq(module: str, tensors: Mapping[str, TensorHeader], awq_order: bool) -> StoredWeight:
    names = {"values": "qweight", "zero_point": "qzeros", "scale": "scales", "groups": "g_idx"}
    parts = {role: f"{module}.{name}" for role, name in names.items() if f"{module}.{name}" in tensors}
    _require(parts, ("scale", "zero_point"), module)
    for role in ("values", "zero_point"):
        _check_words(parts[role], tensors)
    values, scale = tensors[parts["values"]].shape, tensors[parts["scale"]].shape
    packs_outputs = len(values) == 2 and len(scale) == 2 and values[1] * 8 == scale[1]
    return StoredWeight(f"{module}.weight", "awq" if awq_order or packs_outputs else "gptq", parts)


def _compressed(module: str, header: TensorHeader, tensors: Mapping[str, TensorHeader]) -> StoredWeight:
    names = {
        "values": "packed",
        "scale": "scale",
        "zero_point": "zero_point",
        "groups": "g_idx",
        "shape": "shape",
        "divisor": "global_scale",
    }
    parts = {
        role: f"{module}.weight_{name}"
        for role, name in names.items()
        if f"{module}.weight_{name}" in tensors
    }
    _require(parts, ("scale",), module)
    if header.dtype != "U8":
        _check_words(parts["values"], tensors)
        return StoredWeight(f"{module}.weight", "packed", parts)
    kind: Format = "nvfp4" if "divisor" in parts else "mxfp4"
    return StoredWeight(f"{module}.weight", kind, parts)


def _packed_bytes(name: str, module: str, tensors: Mapping[str, TensorHeader]) -> StoredWeight | None:
    """Return the 4-bit weight of ModelOpt, Quark or bitsandbytes that is stored under its own name."""
    if f"{name}_scale_2" in tensors:
        parts = {"values": name, "scale": f"{name}_scale", "factor": f"{name}_scale_2"}
        return StoredWeight(name, "nvfp4", parts)
    if f"{name}.absmax" in tensors:
        parts = {
            role: f"{name}.{suffix}"
            for suffix, role in _BITSANDBYTES.items()
            if f"{name}.{suffix}" in tensors
        }
        for state in (f"{name}.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4")):
            if state in tensors:
                parts["state"] = state
        _require(parts, ("codebook", "state"), module)
        return StoredWeight(name, "bitsandbytes_4bit", {"values": name} | parts)
    if (scale := tensors.get(f"{name}_scale")) and scale.dtype == "U8":
        return StoredWeight(name, "mxfp4", {"values": name, "scale": f"{name}_scale"})
    return None


def _check_words(name: str, tensors: Mapping[str, TensorHeader]) -> None:
    """Raise `ModelError` unless integers of a few bits are packed into words of 32 bits."""
    if (dtype := tensors[name].dtype) != "I32":
        raise ModelError(f"{name!r} is of type {dtype}; only integers packed into I32 can be read")


def _require(parts: Mapping[str, str], roles: tuple[str, ...], module: str) -> None:
    if missing := [role for role in roles if role not in parts]:
        raise ModelError(f"the quantized weight of {module!r} lacks its {missing[0].replace('_', ' ')}")
