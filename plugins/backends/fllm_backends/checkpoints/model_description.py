"""What is known of a model without its weights: for backends whose engine loads them elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import Struct

from fllm import ModelCard, Progress, SamplingDefaults
from fllm.tokenizer import Tokenizer
from fllm_backends.checkpoints.download import fetch_description
from fllm_backends.checkpoints.json_files import read_object
from fllm_backends.checkpoints.model_card import end_tokens, sampling_defaults


class Description(Struct, frozen=True, kw_only=True):
    """The tokenizer and the settings of a model."""

    directory: Path
    tokenizer: Tokenizer
    artifact_id: str
    max_positions: int | None
    """The model's own context length, where its files say it."""
    eos_token_ids: tuple[int, ...]
    defaults: SamplingDefaults

    def card(self, *, max_model_len: int, **changes: Any) -> ModelCard:
        """The card of an engine that serves this model."""
        known: dict[str, Any] = {
            "tokenizer": str(self.directory),
            "eos_token_ids": self.eos_token_ids,
            "defaults": self.defaults,
            "artifact_id": self.artifact_id,
        }
        return ModelCard(max_model_len=max_model_len, **(known | changes))


def describe(model: str, revision: str | None, progress: Callable[[Progress], None]) -> Description:
    """Fetch and read what there is beside the weights; raises `ModelError`. It may take seconds."""
    found = fetch_description(model, revision, progress)
    tokenizer = Tokenizer.load(found.directory)
    return Description(
        directory=found.directory,
        tokenizer=tokenizer,
        artifact_id=found.artifact_id,
        max_positions=_max_positions(found.directory),
        eos_token_ids=end_tokens(found.directory, tokenizer.vocab_size),
        defaults=sampling_defaults(found.directory),
    )


def _max_positions(directory: Path) -> int | None:
    """Models that see as well keep it under ``text_config``; a converted GGUF file, with its tokenizer."""
    config = read_object(directory / "config.json")
    inner = config.get("text_config")
    named = (
        config.get("max_position_embeddings"),
        inner.get("max_position_embeddings") if isinstance(inner, dict) else None,
        read_object(directory / "tokenizer_config.json").get("model_max_length"),
    )
    # Where nobody knew, Hugging Face wrote 10**30 for the tokenizer's.
    return next((value for value in named if isinstance(value, int) and 0 < value < 2**31), None)
