"""Log-probabilities of the tokens of a message, among all tokens of the output."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fllm.concurrency.turn_executor import Pieces
from fllm.pipeline.output_processor import OutputToken, SequenceOutput
from fllm.tokenizer import Tokenizer
from fllm.values import TokenLogprob
from fllm_dialects.responses.protocol.items import Logprob, TopLogprob

PIECE_TOKENS = 64
"""Number of tokens that are converted at once: a few milliseconds with 20 alternatives."""
_MIN_LOGPROB = -9999.0
"""Lowest log-probability that is reported, because JSON has no infinity."""
_COMPARED_BYTES = 64
"""Length of the beginning of a text by which its first token is found."""


class _Entry(Struct, frozen=True):
    offset: int
    """Number of characters of the whole output before the token."""
    logprob: Logprob


class TextLogprobs:
    """Assigns the tokens of an output to the messages in it.

    A token belongs to a message if its first character does. So tokens of reasoning, of calls and of the tags
    around them belong to none.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending: list[_Entry] = []
        self._converted: list[_Entry] | None = None
        self._begins = True
        """Whether the next text begins with the output's first token."""
        self._end: int | None = None
        """Offset of the end of the message so far; ``None`` between messages."""

    def pending(self, output: SequenceOutput) -> int:
        """Return the number of tokens that wait for their text, with those of the output."""
        return len(self._pending) + len(output.tokens)

    def convert(self, output: SequenceOutput) -> Pieces[None]:
        """Convert the tokens of an output in pieces, so that `add` takes little time after it."""
        converted: list[_Entry] = []
        for start in range(0, len(output.tokens), PIECE_TOKENS):
            converted += self._entries(output.tokens[start : start + PIECE_TOKENS])
            yield 0
        self._converted = converted

    def add(self, output: SequenceOutput) -> None:
        """Add the tokens of an output, before its text is taken."""
        self._pending += self._entries(output.tokens) if self._converted is None else self._converted
        self._converted = None

    def take(self, text: str) -> list[Logprob]:
        """Return the log-probabilities for the next piece of a message."""
        if self._end is None:
            if not self._begins:
                del self._pending[: _find(text, self._pending)]
            self._end = self._pending[0].offset if self._pending else 0
        self._end += len(text)
        end, count = self._end, 0
        while count < len(self._pending) and self._pending[count].offset < end:
            count += 1
        return self._take(count)

    def end_message(self, *, last: bool) -> list[Logprob]:
        """Return what is left for a message that ends; if it is the ``last`` item, all tokens are."""
        self._end, self._begins = None, False
        return self._take(len(self._pending)) if last else []

    def skip(self) -> None:
        """Record that something else than a message comes next."""
        self._begins = False

    def _take(self, count: int) -> list[Logprob]:
        taken = [entry.logprob for entry in self._pending[:count]]
        del self._pending[:count]
        return taken

    def _entries(self, tokens: Sequence[OutputToken]) -> list[_Entry]:
        return [
            _Entry(token.text_offset, _logprob(token.logprob, self._tokenizer))
            for token in tokens
            if token.logprob is not None
        ]


def _find(text: str, entries: Sequence[_Entry]) -> int:
    """Return the index of the first token of a text that begins after other tokens."""
    wanted = text.encode()[:_COMPARED_BYTES]
    for start in range(len(entries)):
        found = b""
        for entry in entries[start:]:
            found += bytes(entry.logprob.bytes)
            if len(found) >= len(wanted):
                break
        if found and (found.startswith(wanted) or wanted.startswith(found)):
            return start
    return 0


def _logprob(logprob: TokenLogprob, tokenizer: Tokenizer) -> Logprob:
    data = tokenizer.token_bytes(logprob.token_id)
    top = [
        TopLogprob(_name(alternative), max(value, _MIN_LOGPROB), list(alternative))
        for alternative, value in ((tokenizer.token_bytes(i), value) for i, value in logprob.top)
    ]
    return Logprob(_name(data), max(logprob.logprob, _MIN_LOGPROB), list(data), top)


def _name(data: bytes) -> str:
    """Return a token as text; part of a character is escaped, so that such tokens remain distinct."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
