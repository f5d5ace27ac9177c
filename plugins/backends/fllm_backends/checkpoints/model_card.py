"""Read the model card of a model directory: end tokens and sampling defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from fllm.errors import ModelError
from fllm.values import ModelCard, SamplingDefaults
from fllm_backends.checkpoints.architecture import Architecture
from fllm_backends.checkpoints.json_files import read_json, read_object


class _AddedToken(Struct):
    id: int
    content: str


class _TokenizerFile(Struct):
    """The part of ``tokenizer.json`` that is decoded; the file is large, and the rest is skipped."""

    added_tokens: list[_AddedToken] = []


def read_model_card(
    directory: Path, architecture: Architecture, artifact_id: str, runtime: dict[str, Any]
) -> ModelCard:
    """Return the card of the model in ``directory``; ``runtime`` is added to its runtime facts."""
    return ModelCard(
        tokenizer=str(directory),
        max_model_len=architecture.max_positions,
        eos_token_ids=read_eos_token_ids(directory, architecture.vocab_size),
        defaults=read_sampling_defaults(directory),
        artifact_id=artifact_id,
        runtime={"architecture": architecture.name, "vocab_size": architecture.vocab_size, **runtime},
    )


def read_eos_token_ids(directory: Path, vocab_size: int) -> tuple[int, ...]:
    """Return the EOS token ids that any of three files names: those of Llama 3 and of Qwen disagree."""
    generation = read_object(directory / "generation_config.json")
    config = read_object(directory / "config.json")
    ids = [*_as_list(generation.get("eos_token_id")), *_as_list(config.get("eos_token_id"))]
    eos = read_object(directory / "tokenizer_config.json").get("eos_token")
    content = eos.get("content") if isinstance(eos, dict) else eos
    ids += [token.id for token in _added_tokens(directory / "tokenizer.json") if token.content == content]
    return tuple(token for token in dict.fromkeys(ids) if 0 <= token < vocab_size)


def _added_tokens(path: Path) -> list[_AddedToken]:
    return read_json(path, _TokenizerFile).added_tokens if path.is_file() else []


def _as_list(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def read_sampling_defaults(directory: Path) -> SamplingDefaults:
    """Return what ``generation_config.json`` recommends; no defaults if it disables sampling."""
    generation = read_object(directory / "generation_config.json")
    if generation.get("do_sample") is False:
        return SamplingDefaults()
    values = {name: generation.get(name) for name in SamplingDefaults.__struct_fields__}
    try:
        return msgspec.convert(values | {"max_tokens": generation.get("max_new_tokens")}, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise ModelError(f"generation_config.json: {error}") from error
