"""Count the characters of a prompt while the body is read."""

from __future__ import annotations

import re

MAX_HEAD = 64 * 1024
"""Bytes in which the prompt must begin, else its characters are not counted."""

_PROMPT = re.compile(
    rb'\s*+\{(?:\s*+"(?!prompt")(?:[^"\\]|\\.)*+"\s*+:\s*+(?:"(?:[^"\\]|\\.)*+"|[-+.\w]++)\s*+,)*+'
    rb'\s*+"prompt"\s*+:\s*+(?:\[\s*+)?+"',
    re.DOTALL,
)
"""The beginning of an object up to the first string of its ``prompt``. The fields before it are scalars."""
_CONTENT = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_ESCAPED_BYTES = 6
"""Maximum bytes of an escape sequence (``\\u00e9``), which may be half a character."""
_UTF8_BYTES = 4


class PromptScanner:
    """Reads a completion request and counts the characters of its first prompt, if that is a string."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        """What was read before the prompt; ``None`` once the prompt has begun."""
        self._next_try = 0
        """Size of the head at which it is searched again: doubling sizes keep the work linear."""
        self._rest = b""
        """A backslash whose character has not arrived."""
        self._over = False
        self._bytes = self._backslashes = 0
        self._bytes_per_character = 1

    @property
    def characters(self) -> int:
        """A lower bound of the characters of the prompt so far."""
        plain = self._bytes - _ESCAPED_BYTES * self._backslashes
        return max(plain, 0) // self._bytes_per_character

    def feed(self, data: bytes) -> None:
        """Read the next part of the body."""
        if self._over:
            return
        if self._head is not None:
            data = self._head = self._head + data
            if len(data) < self._next_try:
                return
            self._next_try = min(2 * len(data), MAX_HEAD)
            match = _PROMPT.match(data)
            if match is None:
                self._over = len(data) >= MAX_HEAD
                return
            self._head, data = None, data[match.end() :]
        self._count(self._rest + data)

    def _count(self, data: bytes) -> None:
        match = _CONTENT.match(data)
        assert match is not None
        content, self._rest = match[0], data[match.end() :]
        self._over = self._rest.startswith(b'"')
        self._bytes += len(content)
        self._backslashes += content.count(b"\\")
        if not content.isascii():
            self._bytes_per_character = _UTF8_BYTES
