"""A client of one server that requests an exact number of tokens, as far as the server supports that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, get_args

import aiohttp
import msgspec
from msgspec import Struct

from fllm.errors import UserError
from fllm_bench.response_reader import (
    BadResponse,
    Completion,
    EventStreamReader,
    JsonReader,
    ResponseReader,
    message_of,
)
from fllm_bench.target import RequestOptions, Target

EosControl = Literal["ignore_eos", "generation_config", "none"]
"""How to keep a server from ending a completion early: vLLM's fields, transformers' field, or not at all."""


MAX_CLOSED_CONNECTIONS = 32
"""Maximum number of idle connections that a server may have closed before one request."""


class RequestFailed(Exception):
    """A request without a complete response; the message gives the reason."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status, if the server sent an error response."""


class Conversation(Struct, frozen=True):
    """The messages of a chat so far, and the tools that the model may call."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []


Prompt = str | Conversation
"""What a request asks to complete; only ``/chat/completions`` takes a `Conversation`."""


class ConnectedTarget(Struct, frozen=True, kw_only=True):
    """A target with its model and the request fields that it accepts."""

    target: Target
    options: RequestOptions
    model: str
    eos_control: EosControl


class Client:
    """Sends requests to one server over a pool of connections, which ``async with`` closes."""

    def __init__(self, connected: ConnectedTarget) -> None:
        self._connected = connected
        self._session = _open_session(connected.options)
        path = "/chat/completions" if connected.options.chat else "/completions"
        self._url = connected.target.url + path

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def complete(self, prompt: Prompt, tokens: int, *, stream: bool = True) -> Completion:
        """Generate ``tokens`` tokens greedily; raise `RequestFailed` if the response is not complete."""
        body = msgspec.json.encode(_body(self._connected, prompt, tokens, stream))
        reader: ResponseReader = EventStreamReader() if stream else JsonReader()
        async with _request_errors(self._connected.options.timeout), await self._post(body) as response:
            await _check_status(response)
            while data := await response.content.readany():
                reader.feed(data)
            return reader.completion()

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        """Send a request, again if a server closed an idle connection at the moment of its reuse.

        It may have closed as many as there were concurrent requests.
        """
        for _ in range(MAX_CLOSED_CONNECTIONS):
            try:
                return await self._session.post(self._url, data=body, allow_redirects=False)
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                continue
        return await self._session.post(self._url, data=body, allow_redirects=False)


async def connect(target: Target, options: RequestOptions, prompt: str) -> ConnectedTarget:
    """Find out the model and how to request an exact length; one completion warms the server up.

    Raise `UserError` if the server can't be reached or rejects a plain request.
    """
    try:
        model = options.model or await _first_model(target, options)
        return await _probe_eos_control(target, options, model, prompt)
    except RequestFailed as error:
        raise UserError(f"{target.name} ({target.url}): {error}") from error


async def _first_model(target: Target, options: RequestOptions) -> str:
    try:
        async with (
            _open_session(options) as session,
            _request_errors(options.timeout),
            session.get(f"{target.url}/models", allow_redirects=False) as response,
        ):
            await _check_status(response)
            body = await response.read()
        return msgspec.json.decode(body, type=_Models).data[0].id
    except RequestFailed as error:
        if error.status in (None, 401, 403):
            raise
        raise RequestFailed(f"{error} for /models; name a model with --model") from error
    except (msgspec.MsgspecError, IndexError) as error:
        raise RequestFailed("/models lists no model; name one with --model") from error


async def _probe_eos_control(
    target: Target, options: RequestOptions, model: str, prompt: str
) -> ConnectedTarget:
    """Return the first way that the server accepts: some servers reject unknown fields."""
    for eos_control in get_args(EosControl):
        connected = ConnectedTarget(target=target, options=options, model=model, eos_control=eos_control)
        async with Client(connected) as client:
            try:
                await client.complete(prompt, 2)
                return connected
            except RequestFailed as error:
                if error.status not in (400, 422) or eos_control == "none":
                    raise
    raise AssertionError("the last way returns or raises")


def _open_session(options: RequestOptions) -> aiohttp.ClientSession:
    headers = {"Content-Type": "application/json"}
    if options.api_key:
        headers["Authorization"] = f"Bearer {options.api_key}"
    return aiohttp.ClientSession(
        headers=headers,
        skip_auto_headers=["Accept-Encoding"],  # compression would hold tokens back
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(),  # none: _request_errors limits the whole request
    )


def _body(connected: ConnectedTarget, prompt: Prompt, tokens: int, stream: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": connected.model, "max_tokens": tokens, "temperature": 0}
    if isinstance(prompt, Conversation):
        body["messages"] = prompt.messages
        if prompt.tools:
            body["tools"] = prompt.tools
    elif connected.options.chat:
        body["messages"] = [{"role": "user", "content": prompt}]
    else:
        body["prompt"] = prompt
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    match connected.eos_control:
        case "ignore_eos":
            body |= {"ignore_eos": True, "min_tokens": tokens}
        case "generation_config":
            body["generation_config"] = '{"eos_token_id": -1}'
    return body


async def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        message = message_of(await response.read())
        raise RequestFailed(f"HTTP {response.status}: {message}", response.status)


@asynccontextmanager
async def _request_errors(seconds: float) -> AsyncIterator[None]:
    """Raise `RequestFailed` if the block fails or takes longer than this."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RequestFailed(f"no response within {seconds:g} s") from error
    except BadResponse as error:
        raise RequestFailed(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise RequestFailed(_reason(error)) from error


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientPayloadError():
            return "the connection was closed before the response was complete"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed without a response"
        case aiohttp.ClientResponseError():
            return f"invalid HTTP response: {error.message}"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error) or type(error).__name__


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]
