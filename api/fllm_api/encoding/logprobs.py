"""Log-probabilities in the formats of both endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from fllm.concurrency.turn_executor import Pieces
from fllm.pipeline.output_processor import OutputToken
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob
from fllm_api.protocol.chat import ChatLogprobs, TokenLogprobs, TopLogprob
from fllm_api.protocol.completions import CompletionLogprobs

MIN_LOGPROB = -9999.0
"""Lowest log-probability that is reported, because JSON has no infinity."""
PIECE_TOKENS = 64
"""Number of tokens whose log-probabilities are encoded at once: a few milliseconds with 20 alternatives."""

_json = msgspec.json.Encoder()


class TokenFormatter:
    """Formats tokens for log-probabilities."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def format(self, token_id: int) -> str:
        """Return the token's text, or ``bytes:\\xe2\\x98`` for part of a character.

        Escaping the bytes keeps such tokens distinct.
        """
        if self._as_ids:
            return f"token_id:{token_id}"
        data = self._tokenizer.token_bytes(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def token_bytes(self, token_id: int) -> list[int]:
        """Return the token's bytes as integers."""
        return list(self._tokenizer.token_bytes(token_id))


def chat_logprobs(tokens: Iterable[OutputToken], formatter: TokenFormatter) -> ChatLogprobs:
    """Return the log-probabilities of tokens for `/v1/chat/completions`."""
    return ChatLogprobs([_chat_entry(token.logprob, formatter) for token in tokens if token.logprob])


def _chat_entry(logprob: TokenLogprob, formatter: TokenFormatter) -> TokenLogprobs:
    return TokenLogprobs(
        token=formatter.format(logprob.token_id),
        logprob=finite(logprob.logprob),
        bytes=formatter.token_bytes(logprob.token_id),
        top_logprobs=[
            TopLogprob(formatter.format(i), finite(value), formatter.token_bytes(i))
            for i, value in logprob.top
        ],
    )


def completion_logprobs(
    tokens: Iterable[OutputToken], formatter: TokenFormatter, *, offset: int = 0
) -> CompletionLogprobs:
    """Return the log-probabilities of tokens for `/v1/completions`.

    ``offset`` is the length of an echoed prompt in characters.
    """
    known = [(token, token.logprob) for token in tokens if token.logprob]
    return CompletionLogprobs(
        tokens=[formatter.format(token.token_id) for token, _ in known],
        token_logprobs=[finite(logprob.logprob) for _, logprob in known],
        top_logprobs=[_top(logprob, formatter) for _, logprob in known],
        text_offset=[offset + token.text_offset for token, _ in known],
    )


class EchoedLogprobs(Struct, frozen=True):
    """Three lists of the same length about an echoed prompt."""

    token_ids: Sequence[int]
    offsets: Sequence[int]
    """Index in the prompt's text of each token's first character."""
    logprobs: Sequence[TokenLogprob | None]

    def part(self, start: int, stop: int) -> EchoedLogprobs:
        """Return the values of some of the tokens."""
        return EchoedLogprobs(self.token_ids[start:stop], self.offsets[start:stop], self.logprobs[start:stop])


def prompt_logprobs(echoed: EchoedLogprobs, formatter: TokenFormatter) -> CompletionLogprobs:
    """Return the log-probabilities of an echoed prompt."""
    return CompletionLogprobs(
        tokens=[formatter.format(token_id) for token_id in echoed.token_ids],
        token_logprobs=[None if each is None else finite(each.logprob) for each in echoed.logprobs],
        top_logprobs=[None if each is None else _top(each, formatter) for each in echoed.logprobs],
        text_offset=list(echoed.offsets),
    )


def concat_logprobs(parts: Iterable[CompletionLogprobs]) -> CompletionLogprobs:
    """Concatenate the lists of several parts."""
    whole = CompletionLogprobs([], [], [], [])
    for part in parts:
        whole.tokens.extend(part.tokens)
        whole.token_logprobs.extend(part.token_logprobs)
        whole.top_logprobs.extend(part.top_logprobs)
        whole.text_offset.extend(part.text_offset)
    return whole


def chat_logprobs_in_pieces(tokens: Sequence[OutputToken], formatter: TokenFormatter) -> Pieces[ChatLogprobs]:
    """Return what `chat_logprobs` does, as JSON that is encoded piece by piece."""
    items: list[bytes] = []
    for start in range(0, len(tokens), PIECE_TOKENS):
        items.append(json_items(chat_logprobs(tokens[start : start + PIECE_TOKENS], formatter).content))
        yield 0
    return ChatLogprobs(json_list(items))


def completion_logprobs_in_pieces(
    prompt: EchoedLogprobs | None,
    tokens: Sequence[OutputToken],
    formatter: TokenFormatter,
    *,
    offset: int,
) -> Pieces[CompletionLogprobs]:
    """Return what `prompt_logprobs` and `completion_logprobs` do, as JSON that is encoded piece by piece."""
    fields: tuple[list[bytes], ...] = ([], [], [], [])
    for start in range(0, len(prompt.logprobs) if prompt else 0, PIECE_TOKENS):
        assert prompt is not None
        _append(fields, prompt_logprobs(prompt.part(start, start + PIECE_TOKENS), formatter))
        yield 0
    for start in range(0, len(tokens), PIECE_TOKENS):
        _append(fields, completion_logprobs(tokens[start : start + PIECE_TOKENS], formatter, offset=offset))
        yield 0
    return CompletionLogprobs(*map(json_list, fields))


def _append(fields: Iterable[list[bytes]], part: CompletionLogprobs) -> None:
    for items, values in zip(fields, msgspec.structs.astuple(part), strict=True):
        items.append(json_items(values))


def json_items(values: Sequence[Any]) -> bytes:
    """Return the items of a list as JSON, without the brackets."""
    return _json.encode(values)[1:-1]


def json_list(items: Iterable[bytes]) -> Any:
    """Return a list as JSON, which msgspec copies into the response as it is."""
    return msgspec.Raw(b"[" + b",".join(filter(None, items)) + b"]")


def _top(logprob: TokenLogprob, formatter: TokenFormatter) -> dict[str, float]:
    """Return the most likely tokens with their log-probabilities, and the sampled token in any case."""
    return {
        formatter.format(i): finite(value) for i, value in ((logprob.token_id, logprob.logprob), *logprob.top)
    }


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can represent."""
    return logprob if logprob > MIN_LOGPROB else MIN_LOGPROB
