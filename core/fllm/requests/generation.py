"""Request fields that chat and completions share.

OpenAI's clients send ``null`` for a field that they leave at its default, so every optional field accepts
null. Unknown fields are ignored because new clients send fields that did not exist before.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from fllm.requests.constraints import (
    ChoiceStrings,
    NonEmptyText,
    ResponseFormat,
    SchemaOrText,
    StructuredOutputs,
)

MAX_INT = 2**31 - 1

Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
MaxTokens = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
"""A maximum number of tokens. -1 means no maximum, as null does."""
ChoiceCount = Annotated[int, Meta(ge=1, le=128)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_INT)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
LogitBias = Annotated[float, Meta(ge=-100, le=100)]
MAX_STOP_STRINGS = 64
"""Maximum number of stop strings. OpenAI allows 4."""
MAX_STOP_STRING_CHARS = 1024
MAX_TOKEN_IDS = 1024
"""Maximum length of ``logit_bias`` and of lists of token ids. Each step reads all of them."""
StopString = Annotated[str, Meta(min_length=1, max_length=MAX_STOP_STRING_CHARS)]
MAX_BAD_WORDS = 256
BadWord = Annotated[str, Meta(min_length=1, max_length=1024)]
MAX_ALLOWED_TOKEN_IDS = 65536
CacheSalt = Annotated[str, Meta(min_length=1, max_length=1024)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class StreamOptions(Struct, frozen=True):
    """Options for the usage figures of a stream."""

    include_usage: bool | None = None
    """Send one more chunk at the end, without choices, with the usage of the whole request."""
    continuous_usage_stats: bool | None = None
    """Send the usage so far with every chunk."""


class GenerationRequest(Struct, frozen=True, kw_only=True):
    """Fields of both endpoints: sampling, stop conditions, output options."""

    model: str | None = None
    """Name of the model or of an adapter. If the server has one model, any string is accepted."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    n: ChoiceCount | None = None
    best_of: ChoiceCount | None = None
    """Number of candidates; the ``n`` most likely are returned. With beam search, the number of beams."""
    use_beam_search: bool | None = None
    length_penalty: Annotated[float, Meta(ge=-10, le=10)] | None = None
    early_stopping: bool | Literal["never"] | None = None

    max_tokens: MaxTokens | None = None
    """Maximum number of output tokens. The rest of the context is a maximum in any case."""
    min_tokens: Count | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_INT)] | None = None
    """Number of most likely tokens to sample from. -1 and 0 mean all tokens."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    logit_bias: Annotated[dict[TokenId, LogitBias], Meta(max_length=MAX_TOKEN_IDS)] | None = None
    allowed_token_ids: (
        Annotated[list[TokenId], Meta(min_length=1, max_length=MAX_ALLOWED_TOKEN_IDS)] | None
    ) = None
    """Only these tokens are sampled. A stop token ends the output only if it is one of them."""
    bad_words: Annotated[list[BadWord], Meta(max_length=MAX_BAD_WORDS)] | None = None
    """The output never contains the tokens of one of these texts, with or without a space before it."""
    seed: Seed | None = None

    stop: (
        Annotated[str, Meta(max_length=MAX_STOP_STRING_CHARS)]
        | Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)]
        | None
    ) = None
    """Strings that end the output. An empty string stands for none."""
    include_stop_str_in_output: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_TOKEN_IDS)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    prompt_logprobs: TopLogprobs | None = None
    """Return the log-probability of each token of the prompt, and of this number of most likely tokens."""
    logprob_token_ids: Annotated[list[TokenId], Meta(max_length=MAX_TOKEN_IDS)] | None = None
    """With ``logprobs``: report the log-probabilities of these tokens instead of the most likely ones."""
    return_token_ids: bool | None = None
    """Return the token ids of the prompt and of the output."""
    return_tokens_as_token_ids: bool | None = None
    """Represent a token in log-probabilities as ``token_id:<id>``."""

    truncate_prompt_tokens: MaxTokens | None = None
    """Keep only this number of tokens of a longer prompt. -1: as many as leave room for the output."""
    truncation_side: Literal["left", "right"] | None = None
    """Side at which a prompt is truncated: "left" (the default) keeps its end."""
    add_special_tokens: bool | None = None
    """Add special tokens such as BOS to a text prompt: by default to completions, but not to chats."""
    priority: Seed | None = None
    """Order of the requests of one client that wait: lower first."""

    user: Any = None
    guided_whitespace_pattern: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    logits_processors: Any = None
    media_io_kwargs: Any = None
    mm_processor_kwargs: Any = None
    prompt_embeds: Any = None
    repetition_detection: Any = None
    return_prompt_text: bool | None = None
    return_token_offsets: bool | None = None
    vllm_xargs: Any = None
    watermarking: bool | None = None
    cache_salt: CacheSalt | None = None
    """Share the prefix cache only with requests that have the same salt."""
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: SchemaOrText | None = None
    """vLLM's older name of ``structured_outputs.json``. The other ``guided_*`` fields correspond likewise."""
    guided_regex: NonEmptyText | None = None
    guided_choice: ChoiceStrings | None = None
    guided_grammar: NonEmptyText | None = None
