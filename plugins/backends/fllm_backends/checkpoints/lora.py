"""Read LoRA adapters in PEFT's layout: check the configuration and the header of the tensors. No torch."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import convert, read_json
from fllm_backends.checkpoints.safetensors_files import open_safetensors

log = logging.getLogger("fllm.model")

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
MAX_PATTERNS = 1024
"""Maximum length of ``rank_pattern`` and of ``alpha_pattern``."""

_PREFIX = "base_model.model."
"""What PEFT writes before the model's own name of a module."""
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_SLOW_PATTERN = re.compile(r"\)[*+{]|([*+{].*){5}")
"""Expressions that could take exponential time, or a high power of the length of a name."""
_PLAIN_INITIALISATIONS = (True, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the weights of the model unchanged, besides ``False``."""
_KNOWN = {"alora_invocation_tokens": "aLoRA", "arrow_config": "Arrow", "kasa_config": "KaSA"} | {
    "layer_replication": "layers that are used several times",
    "lora_bias": "biases of the adapter",
    "modules_to_save": "whole modules that were trained",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "adapted parameters, such as those of experts",
    "trainable_token_indices": "trained embeddings of tokens",
    "use_bdlora": "block-diagonal matrices",
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "velora_config": "VeLoRA",
}
"""Keys of PEFT 0.21's configuration that change the computation, and what they stand for."""

Rank = Annotated[int, Meta(ge=1, le=2**16)]


class _Config(Struct, kw_only=True):
    """The keys of ``adapter_config.json`` that are used. `_check_features` reads the others.

    ``target_modules`` is not needed: the tensors say which modules are adapted.
    """

    peft_type: str | None = None
    r: Rank
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: Annotated[dict[str, Rank], Meta(max_length=MAX_PATTERNS)] | None = None
    alpha_pattern: Annotated[dict[str, float], Meta(max_length=MAX_PATTERNS)] | None = None
    base_model_name_or_path: str | None = None


class LoraModule(Struct, frozen=True):
    """One adapted module: ``x @ a.T @ b.T * scale`` is added to its output."""

    a: str
    """Name of the tensor [rank, in] in the file."""
    b: str
    """Name of the tensor [out, rank] in the file."""
    rank: int
    inputs: int
    outputs: int
    scale: float


class LoraCheckpoint(Struct, frozen=True, kw_only=True):
    """An adapter whose configuration and header are checked; its tensors are not read yet."""

    directory: Path
    modules: Mapping[str, LoraModule]
    """Adapted modules, by the model's own names."""
    base_model: str | None
    """The model that the adapter says it was trained for."""

    @property
    def file(self) -> Path:
        """The file with the tensors."""
        return self.directory / TENSORS


def read_lora(directory: Path, max_rank: int) -> LoraCheckpoint:
    """Read the configuration of an adapter and the header of its tensors.

    Raise `ModelError` if one is missing or invalid, or if the adapter needs what is not supported.
    """
    if not directory.is_dir():
        raise ModelError(f"{directory} is not a directory with a LoRA adapter")
    path = directory / CONFIG
    values = read_json(path, dict[str, Any])
    config = convert(values, _Config, f"{path} is invalid")
    _check_features(path, config, values)
    if not (directory / TENSORS).is_file() and any(directory.glob("adapter_model.bin")):
        raise ModelError(f"{directory} holds pickled weights (.bin), which are never loaded")
    return LoraCheckpoint(
        directory=directory,
        modules=_read_modules(directory / TENSORS, path, config, max_rank),
        base_model=config.base_model_name_or_path,
    )


def _check_features(path: Path, config: _Config, values: Mapping[str, Any]) -> None:
    if config.peft_type != "LORA":
        raise ModelError(
            f"{path} describes a PEFT adapter of type {config.peft_type!r}; only LORA is supported"
        )
    for key, feature in _KNOWN.items():
        if values.get(key):
            raise ModelError(f"{path} has {key!r}, which is not supported ({feature})")
    if values.get("bias") not in (None, "none"):
        raise ModelError(f"{path} has trained biases (bias {values['bias']!r}), which are not supported")
    initialisation = values.get("init_lora_weights")
    if initialisation and initialisation not in _PLAIN_INITIALISATIONS:
        raise ModelError(
            f"{path} has init_lora_weights {initialisation!r}, which changes the weights of the model; "
            "convert the adapter to a plain one (PEFT: path_initial_model_for_weight_conversion)"
        )
    for patterns in (config.rank_pattern, config.alpha_pattern):
        for pattern in patterns or ():
            _compile(path, pattern)


def _compile(path: Path, pattern: str) -> re.Pattern[str]:
    """Compile the pattern of a module's name, as PEFT reads it: at its end, after the beginning or a dot."""
    if len(pattern) > 256 or _SLOW_PATTERN.search(pattern):
        raise ModelError(f"{path} has the pattern {pattern[:100]!r}, which is too complex")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError) as error:
        raise ModelError(f"{path} has the pattern {pattern!r}, which is invalid: {error}") from error


def _read_modules(file: Path, path: Path, config: _Config, max_rank: int) -> dict[str, LoraModule]:
    tensors = open_safetensors(file, "np")
    sides: dict[str, dict[str, str]] = {}
    for name in tensors.keys():  # noqa: SIM118
        match = _TENSOR.fullmatch(name.removeprefix(_PREFIX))
        if match is None:
            raise ModelError(f"{file} holds {name!r}, which is not a LoRA matrix of a linear layer")
        sides.setdefault(match["module"], {})[match["side"]] = name
    if not sides:
        raise ModelError(f"{file} holds no tensors")
    ranks = {_compile(path, each): rank for each, rank in (config.rank_pattern or {}).items()}
    alphas = {_compile(path, each): alpha for each, alpha in (config.alpha_pattern or {}).items()}
    modules = {}
    for module, names in sorted(sides.items()):
        if len(names) != 2:
            [side] = {"A", "B"} - set(names)
            raise ModelError(f"{file} lacks lora_{side} of {module!r}")
        a, b = (tensors.get_slice(names[side]) for side in "AB")
        rank = next((r for pattern, r in ranks.items() if pattern.match(module)), config.r)
        alpha = next((a for pattern, a in alphas.items() if pattern.match(module)), config.lora_alpha)
        shapes = a.get_shape(), b.get_shape()
        if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][0] != rank or shapes[1][1] != rank:
            raise ModelError(
                f"{file}: the matrices of {module!r} have the shapes {shapes[0]} and {shapes[1]}; "
                f"{CONFIG} says that their rank is {rank}"
            )
        if rank > max_rank:
            raise ModelError(f"{file}: the rank of {module!r} is {rank}, and --max-lora-rank is {max_rank}")
        if {a.get_dtype(), b.get_dtype()} - {"F32", "F16", "BF16", "F64"}:
            raise ModelError(
                f"{file}: the matrices of {module!r} are of type {a.get_dtype()}, not floating-point"
            )
        scale = alpha / (math.sqrt(rank) if config.use_rslora else rank)
        modules[module] = LoraModule(names["A"], names["B"], rank, shapes[0][1], shapes[1][0], scale)
    return modules
