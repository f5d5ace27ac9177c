"""Requests and responses: OpenAI's embeddings, Jina's and Cohere's rerank, vLLM's score and classify."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_INPUTS = 2048
"""Maximum number of inputs of one request; OpenAI's limit."""
MAX_INT = 2**31 - 1

TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INT)]
Inputs: TypeAlias = str | list[str | TokenId | list[TokenId]]
"""A text, texts, token ids, or lists of token ids."""
Texts: TypeAlias = str | list[str]


class PoolingFields(Struct, frozen=True, kw_only=True):
    """Fields of all requests."""

    model: str | None = None
    """Name of the model. If the server has one model, any string is accepted."""
    user: str | None = None
    """Accepted and not used, as for other endpoints."""
    priority: Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)] | None = None
    """Order of the requests of one client that wait: lower first."""
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=MAX_INT)] | None = None
    """Keep only this number of tokens of a longer input. -1: as many as the model accepts."""
    truncation_side: Literal["left", "right"] | None = None
    """Side at which an input is truncated: "right" (the default) keeps its beginning."""
    use_activation: bool | None = None
    """Whether to normalise embeddings, or to apply softmax or sigmoid to classes; default: as the model."""


class EmbeddingRequest(PoolingFields, frozen=True, kw_only=True):
    """The body of `/v1/embeddings`."""

    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    """"base64": float32 in little-endian order."""
    dimensions: Annotated[int, Meta(ge=1, le=MAX_INT)] | None = None
    """Number of values of an embedding, for models that are trained for it (Matryoshka)."""
    add_special_tokens: bool | None = None
    """Add the model's special tokens to a text (the default)."""
    normalize: bool | None = None
    """The same as `use_activation`."""
    embed_dtype: Literal["float32"] | None = None
    endianness: Literal["native", "little"] | None = None
    """vLLM's names of what base64 contains, which can't be changed."""
    messages: None = None
    """Not supported: a conversation instead of ``input``."""
    prompt_name: str | None = None
    """Name of the model's prompt that precedes a text, such as ``query``."""


class PoolingUsage(Struct, frozen=True):
    """Token counts of a request."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Struct, frozen=True, kw_only=True):
    """One embedding."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The response of `/v1/embeddings`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Embedding]
    usage: PoolingUsage


class Document(Struct, frozen=True):
    """A document that is ranked."""

    text: str


class RerankRequest(PoolingFields, frozen=True, kw_only=True):
    """The body of `/rerank`."""

    query: str
    documents: Annotated[list[str | Document], Meta(min_length=1, max_length=MAX_INPUTS)]
    top_n: Annotated[int, Meta(ge=0, le=MAX_INT)] | None = None
    """Return this number of the best documents; 0 and null: all."""
    return_documents: bool | None = None
    """Whether the response repeats the documents (the default)."""
    rank_fields: None = None
    """Not supported: documents with several fields."""
    max_tokens_per_doc: Annotated[int, Meta(ge=1, le=MAX_INT)] | None = None
    """Keep only this number of tokens of a longer document."""


class RankedDocument(Struct, frozen=True, kw_only=True):
    """One document of the response, best first."""

    index: int
    """Index in the request."""
    document: Document | UnsetType = UNSET
    relevance_score: float


class Ranking(Struct, frozen=True, kw_only=True):
    """The response of `/rerank`."""

    id: str
    model: str
    usage: PoolingUsage
    results: list[RankedDocument]


class ScoreRequest(PoolingFields, frozen=True, kw_only=True):
    """The body of `/score`: ``text_1`` and ``text_2``, or ``queries`` and ``documents``.

    One of each, one and several, or the same number of both.
    """

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None


class Score(Struct, frozen=True, kw_only=True):
    """The score of one pair."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreList(Struct, frozen=True, kw_only=True):
    """The response of `/score`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: PoolingUsage


class ClassifyRequest(PoolingFields, frozen=True, kw_only=True):
    """The body of `/classify`."""

    input: Inputs
    add_special_tokens: bool | None = None
    """Add the model's special tokens to a text (the default)."""


class Classification(Struct, frozen=True, kw_only=True):
    """The classes of one input."""

    index: int
    label: str | None
    """The most likely class."""
    probs: list[float]
    num_classes: int


class ClassificationList(Struct, frozen=True, kw_only=True):
    """The response of `/classify`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classification]
    usage: PoolingUsage
