"""Tokenize prompts in pieces, and reject those that can't fit into the context as early as possible."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from fllm.concurrency.turn_executor import Pieces
from fllm.control_tokens import unescape
from fllm.errors import ContextTooLong, RequestError
from fllm.pipeline.detokenizer import Detokenizer
from fllm.requests.generation import GenerationRequest
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard

PIECE_CHARS = 64 * 1024
"""Length of the pieces in which a text is tokenized that is probably too long."""
USUAL_CHARS_PER_TOKEN = 8
"""A text with more characters per token of the context probably does not fit. English has about 4."""
CUT_TOKENS = 16
"""Number of tokens next to a cut of a text that may differ from those of the whole text."""
MIN_COUNTED_CHARS = 2**20
COUNTED_CHARS_PER_TOKEN = 16
"""Of the context. A text that exceeds both is not tokenized at all: that takes 200 bytes a character."""
PIECE_TOKENS = 256
"""Number of tokens that are detokenized at once."""

_ANCHOR = "☺"
"""Text before another, which a tokenizer would begin with a space if it were alone."""


class Truncation(Struct, frozen=True):
    """How a prompt that is too long is truncated."""

    limit: int
    """Maximum number of tokens."""
    keeps_end: bool

    def keep(self, ids: list[int]) -> list[int]:
        """Return the tokens that are kept."""
        if len(ids) <= self.limit:
            return ids
        return ids[len(ids) - self.limit :] if self.keeps_end else ids[: self.limit]


def read_truncation(body: GenerationRequest, card: ModelCard, max_tokens: int | None) -> Truncation | None:
    """Return how a request truncates its prompts, which leave room for ``max_tokens`` if it fits."""
    limit = body.truncate_prompt_tokens
    if limit is None:
        return None
    if limit == 0:
        raise RequestError(
            "`truncate_prompt_tokens` is 0, but a prompt has at least one token; -1 means as many as fit",
            param="truncate_prompt_tokens",
        )
    if limit == -1:
        room = max_tokens if max_tokens is not None and max_tokens < card.max_model_len else 1
        limit = max(card.max_model_len - max(room, 1), 1)
    return Truncation(limit, keeps_end=body.truncation_side != "right")


def check_text_length(text: str, tokenizer: Tokenizer, card: ModelCard, param: str) -> None:
    """Raise `ContextTooLong`, without tokenizing, if the text is too long for the context in any case."""
    if (min_tokens := tokenizer.min_token_count(text)) >= card.max_model_len:
        raise ContextTooLong.for_prompt(
            card.max_model_len,
            f"the prompt has {len(text)} characters, which are at least {min_tokens} tokens",
            param=param,
        )


def tokenize_prompt(
    text: str,
    tokenizer: Tokenizer,
    card: ModelCard,
    *,
    add_special_tokens: bool,
    truncation: Truncation | None = None,
    param: str,
) -> Pieces[list[int]]:
    """Return the token ids of a prompt. Raise `ContextTooLong` as soon as it certainly does not fit."""
    if truncation is not None:
        return (yield from _tokenize_part(text, tokenizer, truncation, add_special_tokens=add_special_tokens))
    plain = unescape(text)
    check_text_length(plain, tokenizer, card, param)
    charged = 0
    if len(plain) > max(PIECE_CHARS, USUAL_CHARS_PER_TOKEN * card.max_model_len):
        charged = yield from _check_token_count(plain, tokenizer, card, param)
    ids = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    yield len(ids) - charged
    return ids


def tokenize_any(
    text: str, tokenizer: Tokenizer, card: ModelCard, *, add_special_tokens: bool, param: str
) -> Pieces[list[int]]:
    """Return the tokens of a text that may exceed the context. Raise `ContextTooLong` if it does by far."""
    limit = max(MIN_COUNTED_CHARS, COUNTED_CHARS_PER_TOKEN * card.max_model_len)
    if len(text) > limit:
        raise ContextTooLong.for_prompt(
            card.max_model_len,
            f"the text has {len(text)} characters, of which this server tokenizes at most {limit}",
            param=param,
        )
    ids = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    yield len(ids)
    return ids


def anchored(text: str, tokenizer: Tokenizer) -> tuple[str, int]:
    """Return the text to tokenize for one within a text, and how many of its first tokens precede it."""
    if tokenizer.byte_level:
        return text, 0
    anchor = tokenizer.encode(_ANCHOR, add_special_tokens=False)
    both = tokenizer.encode(_ANCHOR + text[:1], add_special_tokens=False)
    return (_ANCHOR + text, len(anchor)) if both[: len(anchor)] == anchor else (text, 0)


def detokenize_prompt(ids: Iterable[int], detokenizer: Detokenizer) -> Pieces[tuple[str, list[int]]]:
    """Return the text of token ids, and the index in it of each token's first character."""
    offsets: list[int] = []
    length, parts = 0, list[str]()
    for count, token_id in enumerate(ids, start=1):
        offsets.append(length)
        parts.append(detokenizer.feed(token_id))
        length += len(parts[-1])
        if count % PIECE_TOKENS == 0:
            yield 0
    parts.append(detokenizer.finish())
    return "".join(parts), offsets


def _tokenize_part(
    text: str, tokenizer: Tokenizer, truncation: Truncation, *, add_special_tokens: bool
) -> Pieces[list[int]]:
    """Return the token ids of a text, of which no more is tokenized than is kept, and some more.

    Special tokens at the beginning are kept, and count.
    """
    special = tokenizer.encode("", add_special_tokens=True) if add_special_tokens else []
    enough = truncation.limit + CUT_TOKENS
    chars = USUAL_CHARS_PER_TOKEN * enough
    while True:
        part = text[-chars:] if truncation.keeps_end else text[:chars]
        ids = tokenizer.encode(part, add_special_tokens=False)
        yield len(ids)
        if len(part) == len(text) or len(ids) >= enough:
            break
        chars *= 2
    rest = Truncation(max(truncation.limit - len(special), 1), truncation.keeps_end)
    return [*special, *rest.keep(ids)][: truncation.limit]


def _check_token_count(text: str, tokenizer: Tokenizer, card: ModelCard, param: str) -> Pieces[int]:
    """Count the tokens piece by piece. Raise `ContextTooLong` if they are clearly more than the context.

    A cut adds few tokens, since it changes only those next to it. A quarter more than the context is certain.
    """
    tokens = 0
    for start in range(0, len(text), PIECE_CHARS):
        piece = len(tokenizer.encode(text[start : start + PIECE_CHARS], add_special_tokens=False))
        tokens += piece
        yield piece
        if tokens > card.max_model_len * 5 // 4 + 16:
            raise ContextTooLong.for_prompt(
                card.max_model_len,
                f"the prompt has {len(text)} characters, of which the first "
                f"{min(start + PIECE_CHARS, len(text))} are {tokens} tokens",
                param=param,
            )
    return tokens
