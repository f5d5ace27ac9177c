"""The fields of ``--speculative-config`` that belong to the built-in drafters. The names are vLLM's."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from fllm.errors import ModelError
from fllm.model import locate


class NgramOptions(Struct, frozen=True, kw_only=True):
    """Fields of the drafter ``ngram``."""

    prompt_lookup_max: Annotated[int, Meta(ge=1, description="longest n-gram to look up")] = 4
    prompt_lookup_min: Annotated[int, Meta(ge=1, description="shortest n-gram to look up")] = 2

    def __post_init__(self) -> None:
        shortest, longest = self.prompt_lookup_min, self.prompt_lookup_max
        if shortest > longest:
            raise ValueError(f"prompt_lookup_min is {shortest} and prompt_lookup_max is {longest}")


class SuffixOptions(Struct, frozen=True, kw_only=True):
    """Fields of the drafter ``suffix``."""

    suffix_decoding_max_tree_depth: Annotated[
        int, Meta(ge=2, le=256, description="longest match, in tokens")
    ] = 24
    suffix_decoding_max_cached_requests: Annotated[
        int, Meta(ge=0, description="outputs of earlier requests that are kept; 0: none")
    ] = 10_000
    suffix_decoding_max_spec_factor: Annotated[
        float, Meta(gt=0, description="maximum number of drafts per matching token")
    ] = 1.0
    suffix_decoding_min_token_prob: Annotated[
        float, Meta(ge=0, le=1, description="estimated probability that a draft needs")
    ] = 0.1


class DraftModelOptions(Struct, frozen=True, kw_only=True):
    """Fields of the drafter ``draft_model``."""

    model: Annotated[
        str, Meta(min_length=1, description="draft model: a directory, a .gguf file or a Hub id")
    ]
    revision: Annotated[str, Meta(description="revision of a draft model on the Hub")] | None = None
    quantization: Annotated[str, Meta(description="quantization of the draft model")] | None = None
    max_model_len: (
        Annotated[int, Meta(ge=1, description="longest sequence for which the draft model proposes tokens")]
        | None
    ) = None

    def __post_init__(self) -> None:
        try:
            locate(self.model)
        except ModelError as error:
            raise ValueError(f"model: {error.message}") from error
