"""HTTP client of the upstream server: pages and event streams, with its errors mapped to `FllmError`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
import msgspec
from msgspec import Struct

from fllm import BackendError, BackendUnavailable, FllmError, RequestError
from fllm.server_responses import DONE, EventData
from fllm_backends.openai.options import OpenAIOptions

CONNECT_TIMEOUT = 10.0
"""Seconds for opening a connection."""
PAGE_TIMEOUT = 5.0
"""Seconds for a request that generates nothing; a server that takes longer hangs."""
MAX_ATTEMPTS = 2
RETRY_DELAY = 0.1
"""Seconds before the second attempt, if the first one ended without a byte of a response."""


class ErrorBody(Struct, frozen=True):
    """OpenAI's error object, in its envelope or bare, as old versions of vLLM sent it."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: int | str | None = None

    def status(self) -> int:
        """Return the HTTP status that an error event of a stream stands for."""
        if isinstance(self.code, int):
            return self.code
        if self.code == "unavailable":
            return 503
        return 400 if self.type == "invalid_request_error" else 500


class _Envelope(Struct, frozen=True):
    error: ErrorBody | str | None = None
    message: str = ""
    detail: str | None = None
    param: str | None = None


class Client:
    """A pool of connections to the upstream server."""

    def __init__(self, options: OpenAIOptions) -> None:
        self.url = options.url.rstrip("/")
        self._timeout = options.timeout
        self._headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._responses: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Close all connections; requests in flight fail with `BackendUnavailable`."""
        self._closed = True
        for response in self._responses:  # closing the session does not wake their readers
            response.content.set_exception(aiohttp.ClientConnectionError("closed"))
        if self._session is not None:
            await self._session.close()

    def check(self) -> None:
        """Raise `BackendUnavailable` after `close`."""
        if self._closed:
            raise BackendUnavailable("the server is stopping")

    async def page(self, url: str) -> bytes:
        """Return the body of a GET; raise the same errors as `events`."""
        try:
            async with (
                asyncio.timeout(PAGE_TIMEOUT),
                self._open_session().get(url, allow_redirects=False) as response,
            ):
                await _check_status(response)
                return await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unavailable(error) from error

    async def events(self, path: str, body: bytes, request_id: str) -> AsyncGenerator[list[bytes]]:
        """Yield the data of server-sent events, in one list per read; closing the generator disconnects.

        Raise `RequestError` if the server rejects the request, `BackendError` for any other failure.
        """
        try:
            async with await self._post(f"{self.url}{path}", body, request_id) as response:
                self._responses.add(response)
                try:
                    async with asyncio.timeout(self._timeout):
                        await _check_status(response)
                    async for events in _read_events(response.content, self._timeout):
                        yield events
                finally:
                    self._responses.discard(response)
                    response.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unavailable(error) from error

    async def _post(self, url: str, body: bytes, request_id: str) -> aiohttp.ClientResponse:
        """Send a request, again if the connection broke before a response: often an idle one, just closed."""
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await self._open_session().post(url, data=body, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectionError as error:
                if isinstance(error, TimeoutError):
                    raise
                await asyncio.sleep(RETRY_DELAY)
        return await self._open_session().post(url, data=body, headers=headers, allow_redirects=False)

    def _open_session(self) -> aiohttp.ClientSession:
        self.check()
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=self._timeout)
            # The upstream server limits the number of requests by itself.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, headers=self._headers)
        return self._session

    def _unavailable(self, error: Exception) -> BackendUnavailable:
        if self._closed:
            return BackendUnavailable("the server is stopping")
        if isinstance(error, TimeoutError):
            return BackendUnavailable(f"the upstream server ({self.url}) does not respond in time")
        reason = str(error) or type(error).__name__
        return BackendUnavailable(
            f"the upstream server ({self.url}) can't be reached, or closed the connection: {reason}"
        )


def error_for(status: int, error: ErrorBody) -> FllmError:
    """Return the `FllmError` for an error response of the upstream server."""
    message = error.message or f"HTTP {status}"
    code = error.code if isinstance(error.code, str) else None
    match status:
        case 400 | 413 | 422:
            return RequestError(message, param=error.param, code=code)
        case 408 | 429 | 502 | 503 | 504:
            return BackendUnavailable(f"the upstream server is overloaded or not ready: {message}")
        case _:
            # A wrong key or path is an error of the operator, not of the client.
            return BackendError(f"the upstream server failed with {status}: {message}")


async def _check_status(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise error_for(response.status, parse_error(await response.read()))


def parse_error(body: bytes) -> ErrorBody:
    """Parse the body of an error response, whichever shape the server uses."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.DecodeError:
        return ErrorBody(body[:200].decode(errors="replace").strip())
    if isinstance(envelope.error, ErrorBody):
        return envelope.error
    return ErrorBody(envelope.error or envelope.message or envelope.detail or "", param=envelope.param)


async def _read_events(content: aiohttp.StreamReader, seconds: float) -> AsyncGenerator[list[bytes]]:
    reader = EventData()
    while True:
        # aiohttp's own timeout ends with the connection, but after a malformed chunk its reader still waits.
        async with asyncio.timeout(seconds):
            data = await content.readany()
        if not data:
            return
        events = reader.feed(data)
        if DONE in events:
            yield events[: events.index(DONE)]
            return
        if events:
            yield events
