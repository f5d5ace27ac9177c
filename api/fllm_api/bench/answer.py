"""One answer, read as it arrives."""

from __future__ import annotations

import time
from typing import Any, Protocol

import msgspec
from msgspec import Struct


class Answer(Struct, frozen=True, kw_only=True):
    """What one request gave, and when; times in seconds since it was sent."""

    first_token: float
    last_token: float
    end: float
    output_tokens: int
    prompt_tokens: int
    """0 where the server does not tell."""

    @property
    def per_token(self) -> float | None:
        """Seconds for each token after the first."""
        if self.output_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)


class BadAnswer(Exception):
    """The answer is none: an error in its midst, or the end is missing."""


class AnswerReader(Protocol):
    """Takes the body of an answer; its clock runs from when it was made."""

    def feed(self, data: bytes) -> None:
        """Take the next piece, divided anywhere."""
        ...

    def answer(self) -> Answer:
        """All of it, once it has come; raises `BadAnswer`."""
        ...


class StreamedAnswer:
    """An answer in server-sent events."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._rest = b""
        self._first = self._last = 0.0
        self._pieces = 0
        self._usage: _Usage | None = None
        self._finished = 0.0
        self._failure: str | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        now = time.perf_counter() - self._began
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip(), now)

    def answer(self) -> Answer:
        """Times and counts; a server that sends no ``usage`` is taken to send a token with each chunk."""
        end = time.perf_counter() - self._began
        if self._failure is None and not self._finished:
            self._failure = "the stream ended before the answer did"
        if self._failure is not None:
            raise BadAnswer(self._failure)
        usage = self._usage or _Usage(completion_tokens=self._pieces)
        return Answer(
            first_token=self._first or self._finished,  # the only token may have no text
            last_token=self._last or self._finished,
            end=end,
            output_tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
        )

    def _event(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self._finished = self._finished or now
            return
        try:
            chunk = _decode(data)
        except BadAnswer as error:
            self._failure = self._failure or str(error)
            return
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices:
            if choice.has_text:
                self._first = self._first or now
                self._last = now
                self._pieces += 1
            if choice.finish_reason is not None:
                self._finished = now


class WholeAnswer:
    """An answer in one piece of JSON; its first token comes with its last."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._body += data

    def answer(self) -> Answer:
        """Times and counts; without ``usage`` no tokens are counted."""
        end = time.perf_counter() - self._began
        usage = _decode(self._body).usage or _Usage()
        return Answer(
            first_token=end,
            last_token=end,
            end=end,
            output_tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
        )


def reason(body: bytes) -> str:
    """What a server's body says about an error, in its several shapes."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        said = body.decode(errors="replace")
    return _told(said)


def _told(said: Any) -> str:
    while isinstance(said, dict):
        said = next((said[key] for key in ("error", "message", "detail") if said.get(key)), str(said))
    return " ".join(str(said).split())[:200]


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's name for it


class _Choice(Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def has_text(self) -> bool:
        delta = self.delta
        return bool(self.text or (delta and (delta.content or delta.reasoning_content or delta.reasoning)))


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


def _decode(data: bytes | bytearray) -> _Chunk:
    try:
        chunk = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BadAnswer(f"an answer that can't be read: {error}") from error
    if chunk.error is not None:
        raise BadAnswer(_told(chunk.error))
    return chunk
