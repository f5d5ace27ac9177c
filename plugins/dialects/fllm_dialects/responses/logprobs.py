"""Log-probabilities of the tokens of a message, among all tokens of the output."""

from __future__ import annotations

import itertools
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
_SEARCHED_TOKENS = 1024
"""Number of tokens after the end of an item among which the next one is looked for."""


class _Entry(Struct, frozen=True):
    offset: int
    """Number of characters of the whole output before the token."""
    logprob: Logprob


class _Place(Struct, frozen=True):
    index: int
    """Of the token in which a text begins."""
    characters: int
    """Number of characters of that token before the text."""


class TextLogprobs:
    """Assigns the tokens of an output to the messages in it.

    A token belongs to the message that its first character is in, or else to the next one. Tokens of
    reasoning, of calls and of the tags around them belong to none. Each item is looked for after the end of
    the one before.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending: list[_Entry] = []
        self._converted: list[_Entry] | None = None
        self._end: int | None = None
        """Offset of the end of the open item so far; ``None`` before its text is found."""
        self._before = 0
        """Offset of the end of the items before it."""

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

    def begin(self) -> None:
        """Record that an item begins."""
        self._before, self._end = self._before if self._end is None else self._end, None

    def take(self, text: str) -> list[Logprob]:
        """Return the log-probabilities for the next piece of a message."""
        if self._end is None:
            place = _find(text, self._pending) or _Place(0, 0)
            del self._pending[: place.index]
            self._end = self._pending[0].offset + place.characters if self._pending else self._before
        return self._take_until(self._end + len(text))

    def pass_over(self, text: str) -> None:
        """Drop the tokens of a piece of reasoning or of arguments, if it is in the output as it stands."""
        place = _find(text, self._pending)
        if place is not None:
            self._take_until(self._pending[place.index].offset + place.characters + len(text))

    def end_message(self, *, last: bool) -> list[Logprob]:
        """Return what is left for a message that ends; if it is the ``last`` item, all tokens are."""
        return self._take(len(self._pending)) if last else []

    def _take_until(self, end: int) -> list[Logprob]:
        self._end, count = end, 0
        while count < len(self._pending) and self._pending[count].offset < end:
            count += 1
        return self._take(count)

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


def _find(text: str, entries: Sequence[_Entry]) -> _Place | None:
    """Return where a text first begins: at a token if possible, or else inside one."""
    wanted = text.encode()[:_COMPARED_BYTES]
    searched = range(min(len(entries), _SEARCHED_TOKENS))
    insides = ((index, cut) for index in searched for cut in range(1, len(entries[index].logprob.bytes)))
    for index, cut in itertools.chain(((index, 0) for index in searched), insides):
        token = bytes(entries[index].logprob.bytes)
        found, after = token[cut:], index + 1
        while after < len(entries) and len(found) < len(wanted) and wanted.startswith(found):
            found += bytes(entries[after].logprob.bytes)
            after += 1
        if found.startswith(wanted):
            return _Place(index, len(token[:cut].decode(errors="replace")))
    return None


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
