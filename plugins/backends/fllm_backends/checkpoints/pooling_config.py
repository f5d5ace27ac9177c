"""Read how a model pools its inputs: from ``config.json`` and the files of Sentence Transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct, field

from fllm.config import Runner
from fllm.errors import ModelError
from fllm_backends.checkpoints.json_files import convert, read_json, read_object

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
Activation: TypeAlias = Literal["identity", "sigmoid", "tanh", "softmax", "relu", "gelu", "silu"]
Size: TypeAlias = Annotated[int, Meta(ge=1, le=2**20)]
Length: TypeAlias = Annotated[int, Meta(ge=1, le=2**28)]

GENERATES = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
"""How the names of classes end that generate text; vLLM has the same rules."""
POOLS = ("ForSequenceClassification", "ForTextEncoding", "EmbeddingModel", "ForMaskedLM", "Model")
"""How the names of classes end that pool."""
CLASSIFIES = "ForSequenceClassification"

_MODES: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, Activation] = {
    "Identity": "identity",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
    "Softmax": "softmax",
}
"""Classes of torch.nn, the only ones that a file may name. They are never imported by name."""
_MAX_MODULES = 16


class DenseLayer(Struct, frozen=True, kw_only=True):
    """A linear layer after the pooling, whose weights are in a directory of their own."""

    directory: Path
    in_features: Size
    out_features: Size
    bias: bool
    activation: Activation


class PoolingConfig(Struct, frozen=True, kw_only=True):
    """How a model turns the hidden states of an input into one vector."""

    classifies: bool
    """Whether the model has a classification head, which pools by itself."""
    modes: tuple[PoolingMode, ...] = ()
    """What is concatenated; empty: the default of the model's class."""
    layers: tuple[DenseLayer, ...] = ()
    normalize: bool = True
    activation: Activation | None = None
    """Of the logits of classes. ``None``: sigmoid of one, softmax of several."""
    max_length: int | None = None
    """Maximum number of tokens, special ones included; ``None``: that of the model."""
    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None
    lowercase: bool = False
    matryoshka: bool | tuple[int, ...] = False


class _Config(Struct, kw_only=True):
    """The keys of ``config.json`` that matter here."""

    architectures: list[str] | None = None
    problem_type: str | None = None
    sentence_transformers: dict[str, Any] | None = None
    sbert_ce_default_activation_function: str | None = None
    is_matryoshka: bool | None = None
    matryoshka_dimensions: list[Size] | None = None


class _Module(Struct):
    """An item of ``modules.json``."""

    type: str
    path: str = ""


class _Dense(Struct):
    in_features: Size
    out_features: Size
    bias: bool = True
    activation_function: str = "Tanh"
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None
    use_residual: bool = False


class _SentenceBert(Struct):
    """``sentence_bert_config.json``."""

    max_seq_length: Length | None = None
    do_lower_case: bool | None = None


class _SentenceTransformers(Struct):
    """``config_sentence_transformers.json``."""

    prompts: dict[str, str] | None = None
    default_prompt_name: str | None = None
    truncate_dim: Size | None = None
    matryoshka_dimensions: list[Size] | None = field(default=None)


def model_pools(directory: Path, runner: Runner) -> bool:
    """Return whether a model is to be served for pooling; ``auto`` decides by its files."""
    if runner != "auto":
        return runner == "pooling"
    if (directory / "modules.json").is_file():
        return True
    names = read_json(directory / "config.json", _Config).architectures or [""]
    return names[0].endswith(POOLS) and not names[0].endswith(GENERATES)


def read_pooling_config(directory: Path) -> PoolingConfig:
    """Read and check all files. Raise `ModelError` that names the file and what can't be served."""
    config = read_json(directory / "config.json", _Config)
    bert = (
        read_json(file, _SentenceBert) if (file := directory / "sentence_bert_config.json").exists() else None
    )
    names = config.architectures or [""]
    common = PoolingConfig(
        classifies=names[0].endswith(CLASSIFIES),
        max_length=bert.max_seq_length if bert else None,
        lowercase=bool(bert and bert.do_lower_case),
        matryoshka=tuple(config.matryoshka_dimensions or ()) or bool(config.is_matryoshka),
    )
    if common.classifies:
        return msgspec.structs.replace(common, activation=_classification_activation(config, directory))
    return _with_modules(directory, common)


def _with_modules(directory: Path, common: PoolingConfig) -> PoolingConfig:
    """Add what ``modules.json`` lists, in its order."""
    file = directory / "modules.json"
    if not file.exists():
        return common
    modules = read_json(file, list[_Module])
    kinds = [module.type.rpartition(".")[2] for module in modules]
    known = [
        "Transformer",
        "Pooling",
        *["Dense"] * kinds.count("Dense"),
        *["Normalize"] * kinds.count("Normalize"),
    ]
    if kinds != known or kinds.count("Normalize") > 1 or len(kinds) > _MAX_MODULES:
        raise ModelError(
            f"{file} lists {', '.join(kinds)[:200] or 'nothing'}: only Transformer, Pooling, Dense and "
            "Normalize can be served, in this order"
        )
    if modules[0].path:
        raise ModelError(f"{file}: the Transformer is in {modules[0].path!r}; it must be next to the file")
    directories = [_inside(directory, module.path, file) for module in modules]
    prompts = _read_prompts(directory / "config_sentence_transformers.json")
    return msgspec.structs.replace(
        common,
        modes=_read_modes(directories[1] / "config.json"),
        layers=tuple(
            _read_dense(each) for each, kind in zip(directories, kinds, strict=True) if kind == "Dense"
        ),
        normalize="Normalize" in kinds,
        prompts=prompts.prompts or {},
        default_prompt_name=prompts.default_prompt_name,
        matryoshka=common.matryoshka or tuple(prompts.matryoshka_dimensions or ()) or False,
    )


def _inside(directory: Path, name: str, file: Path) -> Path:
    """Return a directory of the model. Raise `ModelError` if it is elsewhere."""
    if name and name != Path(name).name:
        raise ModelError(f"{file} names {name!r}: modules must be next to it")
    return directory / name


def _read_modes(file: Path) -> tuple[PoolingMode, ...]:
    content = read_json(file, dict[str, Any])
    if content.get("include_prompt") is False:
        raise ModelError(f"{file}: include_prompt false can't be served")
    modes = content.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _MODES.items() if content.get(key)]
    found = convert(modes if isinstance(modes, list) else [modes], tuple[PoolingMode, ...], str(file))
    if not found:
        raise ModelError(f"{file} names no pooling mode")
    return found


def _read_dense(directory: Path) -> DenseLayer:
    file = directory / "config.json"
    dense = read_json(file, _Dense)
    names = {dense.module_input_name, dense.module_output_name}
    if dense.use_residual or names - {None, "sentence_embedding"}:
        raise ModelError(f"{file}: only a layer of the pooled embedding, without a residual, can be served")
    return DenseLayer(
        directory=directory,
        in_features=dense.in_features,
        out_features=dense.out_features,
        bias=dense.bias,
        activation=_activation(dense.activation_function, str(file)),
    )


def _read_prompts(file: Path) -> _SentenceTransformers:
    prompts = convert(read_object(file), _SentenceTransformers, str(file))
    name = prompts.default_prompt_name
    if name is not None and name not in (prompts.prompts or {}):
        raise ModelError(f"{file}: there is no prompt {name!r}, which default_prompt_name names")
    return prompts


def _classification_activation(config: _Config, directory: Path) -> Activation | None:
    """Return the activation of the logits: that of a cross-encoder, else by the kind of problem."""
    by_type: dict[str | None, Activation] = {
        "regression": "identity",
        "single_label_classification": "softmax",
        "multi_label_classification": "sigmoid",
    }
    named = (config.sentence_transformers or {}).get("activation_fn")
    name = named or config.sbert_ce_default_activation_function
    if isinstance(name, str):
        return _activation(name, f"{directory / 'config.json'}")
    activation = by_type.get(config.problem_type)
    return None if activation == "softmax" else activation


def _activation(name: str, where: str) -> Activation:
    short = name.rpartition(".")[2].removesuffix("()")
    if short not in _ACTIVATIONS:
        raise ModelError(f"{where}: the activation {name!r} can't be served ({', '.join(_ACTIVATIONS)})")
    return _ACTIVATIONS[short]
