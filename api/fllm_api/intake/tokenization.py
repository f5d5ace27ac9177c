"""Tokenize prompts in pieces, and reject those that can't fit into the context as early as possible."""

from __future__ import annotations

from collections.abc import Iterable

from fllm.concurrency.turn_executor import Pieces
from fllm.control_tokens import unescape
from fllm.errors import ContextTooLong
from fllm.pipeline.detokenizer import Detokenizer
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard

PIECE_CHARS = 64 * 1024
"""Length of the pieces in which a text is tokenized that is probably too long."""
USUAL_CHARS_PER_TOKEN = 8
"""A text with more characters per token of the context probably does not fit. English has about 4."""
PIECE_TOKENS = 256
"""Number of tokens that are detokenized at once."""


def check_text_length(text: str, tokenizer: Tokenizer, card: ModelCard, param: str) -> None:
    """Raise `ContextTooLong`, without tokenizing, if the text is too long for the context in any case."""
    if (min_tokens := tokenizer.min_token_count(text)) >= card.max_model_len:
        raise ContextTooLong.for_prompt(
            card.max_model_len,
            f"the prompt has {len(text)} characters, which are at least {min_tokens} tokens",
            param=param,
        )


def tokenize_prompt(
    text: str, tokenizer: Tokenizer, card: ModelCard, *, add_special_tokens: bool, param: str
) -> Pieces[list[int]]:
    """Return the token ids of a prompt. Raise `ContextTooLong` as soon as it certainly does not fit."""
    plain = unescape(text)
    check_text_length(plain, tokenizer, card, param)
    charged = 0
    if len(plain) > max(PIECE_CHARS, USUAL_CHARS_PER_TOKEN * card.max_model_len):
        charged = yield from _check_token_count(plain, tokenizer, card, param)
    ids = tokenizer.encode(text, add_special_tokens=add_special_tokens)
    yield len(ids) - charged
    return ids


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
