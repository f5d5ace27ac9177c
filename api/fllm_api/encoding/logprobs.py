"""Log-probabilities in the shapes of both endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fllm.pipeline.output_processor import OutputToken
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob
from fllm_api.protocol.chat import ChatLogprobs, TokenLogprobs, TopLogprob
from fllm_api.protocol.completions import CompletionLogprobs

MIN_LOGPROB = -9999.0
"""JSON has no infinity: nothing is reported as less likely than this."""


class TokenFormatter:
    """How log-probabilities name a token."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._as_ids = as_ids

    def name(self, token_id: int) -> str:
        """The token's text, or ``bytes:\\xe2\\x98`` for part of a character, so that no two look alike."""
        if self._as_ids:
            return f"token_id:{token_id}"
        data = self._tokenizer.token_bytes(token_id)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def data(self, token_id: int) -> list[int]:
        """The token's bytes."""
        return list(self._tokenizer.token_bytes(token_id))


def chat_logprobs(tokens: Iterable[OutputToken], names: TokenFormatter) -> ChatLogprobs:
    """For `/v1/chat/completions`."""
    return ChatLogprobs([_chat_entry(token.logprob, names) for token in tokens if token.logprob])


def _chat_entry(logprob: TokenLogprob, names: TokenFormatter) -> TokenLogprobs:
    return TokenLogprobs(
        token=names.name(logprob.token_id),
        logprob=_finite(logprob.logprob),
        bytes=names.data(logprob.token_id),
        top_logprobs=[TopLogprob(names.name(i), _finite(value), names.data(i)) for i, value in logprob.top],
    )


def completion_logprobs(
    tokens: Iterable[OutputToken], names: TokenFormatter, *, offset: int = 0
) -> CompletionLogprobs:
    """For `/v1/completions`; ``offset`` is the length of an echoed prompt."""
    known = [(token, token.logprob) for token in tokens if token.logprob]
    return CompletionLogprobs(
        tokens=[names.name(token.token_id) for token, _ in known],
        token_logprobs=[_finite(logprob.logprob) for _, logprob in known],
        top_logprobs=[_top(logprob, names) for _, logprob in known],
        text_offset=[offset + token.text_offset for token, _ in known],
    )


def prompt_logprobs(
    token_ids: Sequence[int],
    offsets: Sequence[int],
    logprobs: Sequence[TokenLogprob | None],
    names: TokenFormatter,
) -> CompletionLogprobs:
    """For an echoed prompt: ``offsets`` says where in its text each token begins."""
    return CompletionLogprobs(
        tokens=[names.name(token_id) for token_id in token_ids],
        token_logprobs=[None if logprob is None else _finite(logprob.logprob) for logprob in logprobs],
        top_logprobs=[None if logprob is None else _top(logprob, names) for logprob in logprobs],
        text_offset=list(offsets),
    )


def concat_logprobs(parts: Iterable[CompletionLogprobs]) -> CompletionLogprobs:
    """One after the other."""
    whole = CompletionLogprobs([], [], [], [])
    for part in parts:
        whole.tokens.extend(part.tokens)
        whole.token_logprobs.extend(part.token_logprobs)
        whole.top_logprobs.extend(part.top_logprobs)
        whole.text_offset.extend(part.text_offset)
    return whole


def _top(logprob: TokenLogprob, names: TokenFormatter) -> dict[str, float]:
    """The sampled token is always among them."""
    return {names.name(i): _finite(value) for i, value in ((logprob.token_id, logprob.logprob), *logprob.top)}


def _finite(logprob: float) -> float:
    return logprob if logprob > MIN_LOGPROB else MIN_LOGPROB
