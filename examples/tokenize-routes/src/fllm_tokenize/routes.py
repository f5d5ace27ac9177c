"""The handlers. Bodies and answers are vLLM's, so that its clients work here too."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from fllm import RequestError, Serving


class TokenizeRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text, or a conversation, which the model's chat template renders."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    """What the model wants around a text, such as BOS; left out, only a bare text gets it."""
    add_generation_prompt: bool = True
    return_token_strs: bool = False


class Tokens(Struct, frozen=True, kw_only=True):
    """The answer of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Struct, frozen=True):
    """Token ids of a text."""

    tokens: list[int]


class Detokenized(Struct, frozen=True):
    """The answer of `/detokenize`."""

    prompt: str


@post("/tokenize", status_code=200, tags=["Tokens"], summary="Tokenize a text or a conversation")
async def tokenize(data: JSONBody[TokenizeRequest], server: NamedDependency[Serving]) -> Tokens:
    """Token ids as `/v1/completions`, or `/v1/chat/completions`, would make them."""
    return await asyncio.to_thread(_tokenize, data, server)  # a long text takes a while


@post("/detokenize", status_code=200, tags=["Tokens"], summary="Text of tokens")
async def detokenize(data: JSONBody[DetokenizeRequest], server: NamedDependency[Serving]) -> Detokenized:
    """The text of tokens, special ones included."""
    size = server.tokenizer.vocab_size
    for at, token in enumerate(data.tokens):
        if not 0 <= token < size:
            raise RequestError(f"there is no token {token}; ids are 0 to {size - 1}", param=f"tokens[{at}]")
    return Detokenized(
        await asyncio.to_thread(server.tokenizer.decode, data.tokens, skip_special_tokens=False)
    )


def _tokenize(body: TokenizeRequest, server: Serving) -> Tokens:
    special = body.messages is None if body.add_special_tokens is None else body.add_special_tokens
    ids = server.tokenizer.encode(_text(body, server), add_special_tokens=special)
    return Tokens(
        count=len(ids),
        max_model_len=server.card.max_model_len,
        tokens=ids,
        token_strs=[server.tokenizer.token_text(token) for token in ids] if body.return_token_strs else None,
    )


def _text(body: TokenizeRequest, server: Serving) -> str:
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("one of `prompt` and `messages` must be given", param="prompt")
    if body.messages is None:
        return body.prompt or ""
    if server.template is None:
        raise RequestError("the model has no chat template", param="messages")
    return server.template.render(body.messages, add_generation_prompt=body.add_generation_prompt)
