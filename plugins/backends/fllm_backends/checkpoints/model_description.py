"""Describe a model without its weights, for backends whose engine loads the weights elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from fllm import ModelCard, Progress, SamplingDefaults
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.download import fetch_tokenizer_files
from fllm_backends.checkpoints.json_files import read_object
from fllm_backends.checkpoints.model_card import read_eos_token_ids, read_sampling_defaults
from fllm_backends.checkpoints.tokenizer_files.directory import tokenizer_directory


class ModelDescription(Struct, frozen=True, kw_only=True):
    """The tokenizer and the settings of a model."""

    directory: Path
    tokenizer: Tokenizer
    artifact_id: str
    max_positions: int | None
    """Context length of the model; ``None`` if its files do not give one."""
    eos_token_ids: tuple[int, ...]
    defaults: SamplingDefaults

    def card(self, *, max_model_len: int, **changes: Any) -> ModelCard:
        """Return the card of an engine that serves this model; ``changes`` replace its fields."""
        fields: dict[str, Any] = {
            "tokenizer": str(self.directory),
            "eos_token_ids": self.eos_token_ids,
            "defaults": self.defaults,
            "artifact_id": self.artifact_id,
        }
        return ModelCard(max_model_len=max_model_len, **(fields | changes))


def read_model_description(
    model: str, revision: str | None, progress: Callable[[Progress], None]
) -> ModelDescription:
    """Fetch and read the files of a model except its weights. This may take seconds. Raise `ModelError`."""
    local = fetch_tokenizer_files(model, revision, progress)
    directory = tokenizer_directory(local.directory)
    tokenizer = Tokenizer.load(directory)
    return ModelDescription(
        directory=directory,
        tokenizer=tokenizer,
        artifact_id=local.artifact_id,
        max_positions=_max_positions(local.directory),
        eos_token_ids=read_eos_token_ids(local.directory, tokenizer.vocab_size),
        defaults=read_sampling_defaults(local.directory),
    )


def _max_positions(directory: Path) -> int | None:
    """Return the first valid context length.

    Multimodal models keep it under ``text_config``; a converted GGUF file keeps it with its tokenizer.
    """
    config = read_object(directory / "config.json")
    text_config = config.get("text_config")
    candidates = (
        config.get("max_position_embeddings"),
        text_config.get("max_position_embeddings") if isinstance(text_config, dict) else None,
        read_object(directory / "tokenizer_config.json").get("model_max_length"),
    )
    # Hugging Face writes 10**30 as the tokenizer's length if it is unknown.
    return next((value for value in candidates if isinstance(value, int) and 0 < value < 2**31), None)
