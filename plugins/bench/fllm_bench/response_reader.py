"""Parse responses as they arrive, and time their tokens."""

from __future__ import annotations

import time
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from fllm.server_responses import DONE, EventData, error_message


class Completion(Struct, frozen=True, kw_only=True):
    """Token counts and times of one completed request, in seconds since the request was sent."""

    first_token: float
    last_token: float
    end: float
    output_tokens: int
    prompt_tokens: int
    """0 if the server does not report it."""

    @property
    def per_token(self) -> float | None:
        """Seconds per token after the first; None for fewer than two tokens."""
        if self.output_tokens < 2:
            return None
        return (self.last_token - self.first_token) / (self.output_tokens - 1)


class BadResponse(Exception):
    """The response contains an error, is malformed or incomplete."""


class ResponseReader(Protocol):
    """Reads the body of one response; its clock starts when it is created."""

    def feed(self, data: bytes) -> None:
        """Consume the next piece of the body; pieces may be split anywhere."""
        ...

    def completion(self) -> Completion:
        """Return the result after the end of the body; raise `BadResponse` if it is bad."""
        ...


class EventStreamReader:
    """Reads a response of server-sent events."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._events = EventData()
        self._first = self._last = 0.0
        self._text_chunks = 0
        self._usage: _Usage | None = None
        self._finished = 0.0
        self._error: str | None = None

    def feed(self, data: bytes) -> None:
        """Consume the next piece of the body."""
        now = time.perf_counter() - self._started
        for event in self._events.feed(data):
            self._read_event(event, now)

    def completion(self) -> Completion:
        """Return times and counts; without ``usage``, each chunk with text counts as one token."""
        end = time.perf_counter() - self._started
        if self._error is None and not self._finished:
            self._error = "the stream ended before the response was complete"
        if self._error is not None:
            raise BadResponse(self._error)
        usage = self._usage or _Usage(completion_tokens=self._text_chunks)
        return Completion(
            first_token=self._first or self._finished,  # the only token may have no text
            last_token=self._last or self._finished,
            end=end,
            output_tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
        )

    def _read_event(self, data: bytes, now: float) -> None:
        if data == DONE:
            self._finished = self._finished or now
            return
        try:
            chunk = _decode(data)
        except BadResponse as error:
            self._error = self._error or str(error)
            return
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices:
            if choice.has_text:
                self._first = self._first or now
                self._last = now
                self._text_chunks += 1
            if choice.finish_reason is not None:
                self._finished = now


class JsonReader:
    """Reads a response that is one JSON object; its first and last token arrive at its end."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        """Consume the next piece of the body."""
        self._body += data

    def completion(self) -> Completion:
        """Return times and counts; without ``usage``, the counts are 0."""
        end = time.perf_counter() - self._started
        usage = _decode(self._body).usage or _Usage()
        return Completion(
            first_token=end,
            last_token=end,
            end=end,
            output_tokens=usage.completion_tokens,
            prompt_tokens=usage.prompt_tokens,
        )


def message_of(body: bytes) -> str:
    """Return the message in the body of an error response, whichever shape the server uses."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:
        value = body.decode(errors="replace")
    return error_message(value)


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's name for reasoning_content
    tool_calls: list[msgspec.Raw] | None = None

    @property
    def has_text(self) -> bool:
        return bool(self.content or self.reasoning_content or self.reasoning or self.tool_calls)


class _Choice(Struct):
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def has_text(self) -> bool:
        return bool(self.text or (self.delta and self.delta.has_text))


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)


def _decode(data: bytes | bytearray) -> _Chunk:
    try:
        chunk = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise BadResponse(f"malformed response: {error}") from error
    if chunk.error is not None:
        raise BadResponse(error_message(chunk.error))
    return chunk
