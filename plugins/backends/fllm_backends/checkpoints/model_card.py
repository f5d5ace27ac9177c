"""What a model directory says of the model beside its weights."""

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
    """The file is large; the rest of it is skipped."""

    added_tokens: list[_AddedToken] = []


def read_card(
    directory: Path, architecture: Architecture, artifact_id: str, runtime: dict[str, Any]
) -> ModelCard:
    """The card of the model in that directory."""
    return ModelCard(
        tokenizer=str(directory),
        max_model_len=architecture.max_positions,
        eos_token_ids=end_tokens(directory, architecture.vocab_size),
        defaults=sampling_defaults(directory),
        artifact_id=artifact_id,
        runtime={"architecture": architecture.name, "vocab_size": architecture.vocab_size, **runtime},
    )


def end_tokens(directory: Path, vocab_size: int) -> tuple[int, ...]:
    """Any of three files may name them; those of Llama 3 and of Qwen do not agree with each other."""
    generation = read_object(directory / "generation_config.json")
    config = read_object(directory / "config.json")
    found = [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    named = read_object(directory / "tokenizer_config.json").get("eos_token")
    name = named.get("content") if isinstance(named, dict) else named
    found += [token.id for token in _added_tokens(directory / "tokenizer.json") if token.content == name]
    return tuple(token for token in dict.fromkeys(found) if 0 <= token < vocab_size)


def _added_tokens(path: Path) -> list[_AddedToken]:
    return read_json(path, _TokenizerFile).added_tokens if path.is_file() else []


def _ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def sampling_defaults(directory: Path) -> SamplingDefaults:
    """What ``generation_config.json`` recommends; nothing where it asks for no sampling."""
    generation = read_object(directory / "generation_config.json")
    if generation.get("do_sample") is False:
        return SamplingDefaults()
    known = {name: generation.get(name) for name in SamplingDefaults.__struct_fields__}
    try:
        return msgspec.convert(known | {"max_tokens": generation.get("max_new_tokens")}, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise ModelError(f"generation_config.json: {error}") from error
