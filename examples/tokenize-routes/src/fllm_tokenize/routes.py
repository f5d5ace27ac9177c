"""The handlers. Requests and responses have vLLM's format, so that its clients work here too."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from fllm import RequestError, Serving


class TokenizeRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text, or a conversation that the model's chat template renders."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    """Whether to add special tokens such as BOS. By default, only a plain text gets them."""
    add_generation_prompt: bool = True
    return_token_strs: bool = False


class Tokens(Struct, frozen=True, kw_only=True):
    """The response of `/tokenize`."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Struct, frozen=True):
    """The token ids to decode."""

    tokens: list[int]


class Detokenized(Struct, frozen=True):
    """The response of `/detokenize`."""

    prompt: str


@post("/tokenize", status_code=200, tags=["Tokens"], summary="Tokenize a text or a conversation")
async def tokenize(data: JSONBody[TokenizeRequest], server: NamedDependency[Serving]) -> Tokens:
    """Return the token ids that `/v1/completions` or `/v1/chat/completions` would use."""
    return await asyncio.to_thread(_tokenize, data, server)  # a long text takes a while


@post("/detokenize", status_code=200, tags=["Tokens"], summary="Text of tokens")
async def detokenize(data: JSONBody[DetokenizeRequest], server: NamedDependency[Serving]) -> Detokenized:
    """Return the text of tokens, special ones included."""
    size = server.tokenizer.vocab_size
    for at, token in enumerate(data.tokens):
        if not 0 <= token < size:
            raise RequestError(
                f"the token id {token} does not exist; ids are 0 to {size - 1}", param=f"tokens[{at}]"
            )
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
        raise RequestError("exactly one of `prompt` and `messages` is required", param="prompt")
    if body.messages is None:
        return body.prompt or ""
    if server.template is None:
        raise RequestError("the model has no chat template", param="messages")
    return server.template.render(body.messages, add_generation_prompt=body.add_generation_prompt)
