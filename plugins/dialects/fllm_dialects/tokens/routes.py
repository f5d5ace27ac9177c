"""The handlers. The work on a large body takes turns with that of other clients."""

from __future__ import annotations

from itertools import chain

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from fllm import LIMITED, ChatRequest, RequestError, Serving
from fllm.concurrency.turn_executor import Pieces
from fllm.control_tokens import ControlTokenEscaper, escape_marks, unescape
from fllm.tokenizer import Tokenizer
from fllm_dialects.tokens.protocol import (
    AppliedTemplate,
    DetokenizedText,
    DetokenizeRequest,
    TokenizeRequest,
    TokenList,
    TokenPiece,
)


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
        return _token_list(data, await server.tokenize_chat(data), server)
    ids = await server.prepare(_encode(data, server.tokenizer))
    if data.prompt is not None:
        return _token_list(data, ids, server)
    return TokenList(tokens=[_piece(each, server.tokenizer) for each in ids] if data.with_pieces else ids)


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


def _encode(body: TokenizeRequest, tokenizer: Tokenizer) -> Pieces[list[int]]:
    special = body.add_special_tokens
    if body.prompt is not None:
        text, special = escape_marks(body.prompt), special is not False
    else:
        text, special = body.content or "", bool(body.add_special if special is None else special)
        marked = chain(*tokenizer.added_tokens) if body.parse_special is False else ()
        text = ControlTokenEscaper([*marked]).escape(text)
    ids = tokenizer.encode(text, add_special_tokens=special)
    yield len(ids)
    return ids


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


def _token_list(body: TokenizeRequest, ids: list[int], server: Serving) -> TokenList:
    return TokenList(
        count=len(ids),
        max_model_len=server.card.max_model_len,
        tokens=ids,
        token_strs=[server.tokenizer.token_text(each) for each in ids] if body.return_token_strs else None,
    )


def _piece(token_id: int, tokenizer: Tokenizer) -> TokenPiece:
    data = tokenizer.token_bytes(token_id)
    try:
        return TokenPiece(token_id, data.decode())
    except UnicodeDecodeError:
        return TokenPiece(token_id, list(data))
