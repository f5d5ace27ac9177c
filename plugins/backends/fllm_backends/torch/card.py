"""What a model directory says of the model beside its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fllm.errors import ModelError
from fllm.values import ModelCard, SamplingDefaults
from fllm_backends.torch.architecture import Architecture, read_json


def read_card(
    directory: Path, architecture: Architecture, artifact_id: str, runtime: dict[str, Any]
) -> ModelCard:
    """The card of the model in that directory."""
    generation = _optional_json(directory / "generation_config.json")
    return ModelCard(
        tokenizer=str(directory),
        max_model_len=architecture.max_positions,
        eos_token_ids=_eos(directory, generation, architecture.vocab_size),
        defaults=_defaults(generation),
        artifact_id=artifact_id,
        runtime={"architecture": architecture.name, "vocab_size": architecture.vocab_size, **runtime},
    )


def _eos(directory: Path, generation: dict[str, Any], vocab_size: int) -> tuple[int, ...]:
    """Any of three files may name them; those of Llama 3 and of Qwen do not agree with each other."""
    config = read_json(directory / "config.json")
    found = [*_ids(generation.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    named = _optional_json(directory / "tokenizer_config.json").get("eos_token")
    name = named.get("content") if isinstance(named, dict) else named
    added = _optional_json(directory / "tokenizer.json").get("added_tokens", [])
    found += [token["id"] for token in added if token["content"] == name]
    return tuple(token for token in dict.fromkeys(found) if 0 <= token < vocab_size)


def _ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _defaults(generation: dict[str, Any]) -> SamplingDefaults:
    if generation.get("do_sample") is False:
        return SamplingDefaults()
    known = {name: generation.get(name) for name in SamplingDefaults.__struct_fields__}
    try:
        return msgspec.convert(known | {"max_tokens": generation.get("max_new_tokens")}, SamplingDefaults)
    except msgspec.ValidationError as error:
        raise ModelError(f"generation_config.json: {error}") from error


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
