"""The handlers. The work on a large body takes turns with that of other clients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm import LIMITED, ChatRequest, RequestError, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm.control_tokens import ControlTokenEscaper, escape_marks, unescape
from fllm.tokenizer import Tokenizer
from fllm_dialects.field_names import field_names
from fllm_dialects.tokens.protocol import (
    AppliedTemplate,
    DetokenizedText,
    DetokenizeRequest,
    TokenizeRequest,
    TokenList,
    TokenPiece,
)

T = TypeVar("T")

PIECE_TOKENS = 1024
"""Number of tokens that are converted at once."""


@post(
    ["/tokenize", "/v1/tokenize"],
    status_code=200,
    opt=dict(LIMITED),
    tags=["Tokens"],
    summary="Tokenize a text or a conversation",
)
async def tokenize(data: JSONBody[TokenizeRequest], server: NamedDependency[Serving]) -> TokenList:
    """Return the token ids that `/v1/completions` or `/v1/chat/completions` would use."""
    given = [data.prompt is not None, data.content is not None, bool(data.messages)]
    if sum(given) != 1:
        raise RequestError("send one of `prompt`, `messages` and `content`", param="prompt")
    if data.messages:
        ids = await server.tokenize_chat(data)
    else:
        text, special = await server.prepare(_text(data, server.tokenizer))
        with field_names({"prompt": "prompt" if data.content is None else "content"}):
            ids = await server.tokenize(text, add_special_tokens=special)
    return await server.prepare(_token_list(data, ids, server))


@post(
    ["/detokenize", "/v1/detokenize"],
    status_code=200,
    opt=dict(LIMITED),
    tags=["Tokens"],
    summary="Return the text of tokens",
)
async def detokenize(data: JSONBody[DetokenizeRequest], server: NamedDependency[Serving]) -> DetokenizedText:
    """Return the text of tokens, special ones included."""
    text = await server.prepare(_decode(data.tokens, server.tokenizer))
    return DetokenizedText(prompt=text, content=text)


@post(
    "/apply-template",
    status_code=200,
    opt=dict(LIMITED),
    tags=["Tokens"],
    summary="Render a conversation",
)
async def apply_template(data: JSONBody[ChatRequest], server: NamedDependency[Serving]) -> AppliedTemplate:
    """Return the text of the prompt that `/v1/chat/completions` would make of the same request."""
    return AppliedTemplate(unescape(await server.render_chat(data)))


def _text(body: TokenizeRequest, tokenizer: Tokenizer) -> Pieces[tuple[str, bool]]:
    """Return the text to tokenize, and whether tokens such as BOS are added."""
    yield 0
    special = body.add_special_tokens
    if body.prompt is not None:
        return escape_marks(body.prompt), special is not False
    marked = chain(*tokenizer.added_tokens) if body.parse_special is False else ()
    text = ControlTokenEscaper([*marked]).escape(body.content or "")
    return text, bool(body.add_special if special is None else special)


def _decode(ids: list[int], tokenizer: Tokenizer) -> Pieces[str]:
    for at, token_id in enumerate(ids):
        if token_id >= tokenizer.vocab_size:
            raise RequestError(
                f"`tokens[{at}]`: the token id {token_id} does not exist; ids are 0 to "
                f"{tokenizer.vocab_size - 1}",
                param=f"tokens[{at}]",
            )
    yield len(ids)
    return tokenizer.decode(ids, skip_special_tokens=False)


def _token_list(body: TokenizeRequest, ids: list[int], server: Serving) -> Pieces[TokenList]:
    tokenizer = server.tokenizer
    if body.content is not None:
        pieces = yield from _each(ids, lambda token_id: _piece(token_id, tokenizer), wanted=body.with_pieces)
        return TokenList(tokens=ids if pieces is None else pieces)
    return TokenList(
        count=len(ids),
        max_model_len=server.card.max_model_len,
        tokens=ids,
        token_strs=(yield from _each(ids, tokenizer.token_text, wanted=body.return_token_strs)),
    )


def _each(ids: list[int], convert: Callable[[int], T], *, wanted: bool | None) -> Pieces[list[T] | None]:
    """Return what each token is converted to, or ``None`` if the request does not ask for it."""
    if not wanted:
        return None
    found: list[T] = []
    for start in range(0, len(ids), PIECE_TOKENS):
        found += map(convert, ids[start : start + PIECE_TOKENS])
        yield 0
    return found


def _piece(token_id: int, tokenizer: Tokenizer) -> TokenPiece:
    data = tokenizer.token_bytes(token_id)
    try:
        return TokenPiece(token_id, data.decode())
    except UnicodeDecodeError:
        return TokenPiece(token_id, list(data))
