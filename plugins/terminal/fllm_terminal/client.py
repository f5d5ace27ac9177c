"""A client of OpenAI's Chat API that yields events."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import aiohttp
import msgspec
from msgspec import Struct

from fllm.errors import UserError
from fllm.events import Event, Finished, Reasoning, Text, ToolArguments, ToolStart
from fllm.server_responses import DONE, EventData, error_message
from fllm.values import Usage
from fllm_terminal.connection import Connection
from fllm_terminal.text import first_line, safe

_REASONS: dict[str, Literal["stop", "length", "tool_calls"]] = {
    "length": "length",
    "tool_calls": "tool_calls",
}


class RequestFailed(UserError):
    """A request without a complete response; the message gives the reason."""


class Client:
    """Sends requests to one server. A response may take as long as it takes; Ctrl-C ends it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def models(self) -> list[str]:
        """Return the names of the server's models. Raise `RequestFailed` if it does not answer."""
        async with self._session() as session, session.get(self._url("models")) as response:
            body = await _checked(response)
        try:
            return [model.id for model in msgspec.json.decode(body, type=_Models).data]
        except msgspec.MsgspecError as error:
            raise RequestFailed(f"{self._connection.url} lists no models: {error}") from error

    async def chat(self, body: dict[str, Any]) -> AsyncIterator[Event]:
        """Yield the events of a response as they arrive; the last is `Finished`.

        Raise `RequestFailed` if the server refuses the request or the stream ends before its end.
        """
        streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
        reader = StreamReader()
        async with (
            self._session() as session,
            session.post(self._url("chat/completions"), json=streamed) as response,
        ):
            if response.status != 200:
                await _checked(response)
            while data := await response.content.readany():
                for event in reader.feed(data):
                    yield event
        yield reader.finished()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        key, socket = self._connection.api_key, self._connection.socket
        try:
            async with aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {key}"} if key else {},
                skip_auto_headers=["Accept-Encoding"],  # compression would hold tokens back
                connector=aiohttp.UnixConnector(socket) if socket else aiohttp.TCPConnector(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
                trust_env=socket is None,
            ) as session:
                yield session
        except aiohttp.InvalidURL as error:
            raise RequestFailed(f"{self._connection.url} is not a URL") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RequestFailed(f"{self._connection.url}: {_reason(error)}") from error

    def _url(self, path: str) -> str:
        return f"{self._connection.url}/{path}"


class StreamReader:
    """Turns a stream of Chat into events."""

    def __init__(self) -> None:
        self._data = EventData()
        self._calls: set[int] = set()
        self._reason = ""
        self._usage: _Usage | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield the events of the next piece of the stream. Raise `RequestFailed` at an error."""
        for each in self._data.feed(data):
            if each != DONE:
                yield from self._read(each)

    def _read(self, data: bytes) -> list[Event]:
        try:
            chunk = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise RequestFailed(f"malformed response: {error}") from error
        if chunk.error is not None:
            raise RequestFailed(_message(chunk.error))
        self._usage = chunk.usage or self._usage
        return [event for choice in chunk.choices for event in self._read_choice(choice)]

    def finished(self) -> Finished:
        """Return the last event. Raise `RequestFailed` if the stream ended before the response did."""
        if not self._reason:
            raise RequestFailed("the connection was closed before the response was complete")
        usage = self._usage or _Usage()
        return Finished(
            reason=_REASONS.get(self._reason, "stop"),
            usage=Usage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens),
        )

    def _read_choice(self, choice: _Choice) -> list[Event]:
        self._reason = choice.finish_reason or self._reason
        delta = choice.delta
        events: list[Event] = []
        if reasoning := delta.reasoning_content or delta.reasoning:
            events.append(Reasoning(reasoning))
        if delta.content:
            events.append(Text(delta.content))
        for call in delta.tool_calls or ():
            if call.index not in self._calls:
                self._calls.add(call.index)
                events.append(ToolStart(call.index, call.function.name or "", call.id))
            if call.function.arguments:
                events.append(ToolArguments(call.index, call.function.arguments))
        return events


async def _checked(response: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raise `RequestFailed` with the server's message if the status is an error."""
    body = await response.read()
    if response.status == 200:
        return body
    try:
        message = _message(msgspec.json.decode(body))
    except msgspec.DecodeError:
        message = first_line(body.decode(errors="replace")) or response.reason or "no reason"
    hints = {401: "; give a key with --api-key", 404: f"; asked {response.url}"}
    raise RequestFailed(f"{message}{hints.get(response.status, '')} (HTTP {response.status})")


def _message(body: Any) -> str:
    return safe(error_message(body, 1000))


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientPayloadError():
            return "the connection was closed before the response was complete"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without a response"
        case aiohttp.ClientSSLError():
            return f"no TLS connection: {first_line(str(error))}"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case _:
            return first_line(str(error)) or type(error).__name__


class _Model(Struct, frozen=True):
    id: str


class _Models(Struct, frozen=True):
    data: list[_Model]


class _Function(Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(Struct, frozen=True):
    index: int = 0
    id: str | None = None
    function: _Function = _Function()


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's name for reasoning_content
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct, frozen=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _Usage(Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Chunk)
