"""Requests and responses. The name of the text tells vLLM's format (``prompt``) from llama.cpp's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from fllm import ChatMessage, ChatRequest

TokenId = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class TokenizeRequest(ChatRequest, frozen=True, kw_only=True):
    """A text, or a conversation with any fields of a chat request: exactly one of the first three fields."""

    prompt: str | None = None
    """A text, in vLLM's format."""
    content: str | None = None
    """A text, in llama.cpp's format."""
    messages: Annotated[list[ChatMessage], Meta(min_length=1)] = field(default_factory=list)
    """A conversation. Its tokens are those of the prompt of `/v1/chat/completions`."""
    return_token_strs: bool | None = None
    """vLLM: return the text of each token."""
    add_special: bool | None = None
    """llama.cpp's name of ``add_special_tokens``; its default is false."""
    parse_special: bool | None = None
    """llama.cpp: whether special tokens in the text are special (the default), or text."""
    with_pieces: bool | None = None
    """llama.cpp: return the text of each token."""


class TokenPiece(Struct, frozen=True):
    """A token with its text, or with its bytes if they are not complete characters."""

    id: int
    piece: str | list[int]


class TokenList(Struct, frozen=True, kw_only=True):
    """Tokens. llama.cpp's format has no other fields."""

    tokens: Sequence[int | TokenPiece]
    count: int | UnsetType = UNSET
    max_model_len: int | UnsetType = UNSET
    token_strs: list[str] | UnsetType | None = UNSET


class DetokenizeRequest(Struct, frozen=True):
    """The token ids to decode."""

    tokens: list[TokenId]
    model: str | None = None


class DetokenizedText(Struct, frozen=True):
    """The text, under vLLM's name and under llama.cpp's."""

    prompt: str
    content: str


class AppliedTemplate(Struct, frozen=True):
    """The text of the prompt that a conversation becomes."""

    prompt: str
