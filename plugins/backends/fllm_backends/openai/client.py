"""HTTP to the server behind: pages, and streams of server-sent events. Errors come out as ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import aiohttp
import msgspec
from msgspec import Struct

from fllm import BackendError, BackendUnavailable, FllmError, RequestError
from fllm_backends.openai.options import OpenAIOptions

CONNECT_SECONDS = 10.0
PAGE_SECONDS = 5.0
"""For what is no generation: a server that takes longer to say how it is hangs."""
ATTEMPTS = 2
PAUSE = 0.1
"""Seconds before the second attempt, where not a byte of an answer came to the first."""
_DONE = b"[DONE]"


class ErrorBody(Struct, frozen=True):
    """OpenAI's error, inside its envelope or bare, as vLLM once sent it."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: int | str | None = None

    def status(self) -> int:
        """The status that an error within a stream would have had before it."""
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
    """The connections to one server."""

    def __init__(self, options: OpenAIOptions) -> None:
        self.url = options.url.rstrip("/")
        self._timeout = options.timeout
        self._headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._answers: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Close all connections; what still waits for an answer fails with `BackendUnavailable`."""
        self._closed = True
        for answer in self._answers:  # closing the session would leave its reader waiting
            answer.content.set_exception(aiohttp.ClientConnectionError("closed"))
        if self._session is not None:
            await self._session.close()

    def check(self) -> None:
        """Raise `BackendUnavailable` after `close`."""
        if self._closed:
            raise BackendUnavailable("the server is stopping")

    async def page(self, url: str) -> bytes:
        """The body of a GET; raises as `events` does."""
        try:
            async with asyncio.timeout(PAGE_SECONDS), self._open().get(url, allow_redirects=False) as answer:
                await _check(answer)
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(error) from error

    async def events(self, path: str, body: bytes, request_id: str) -> AsyncGenerator[list[bytes]]:
        """The data of server-sent events, those that come together together; closing it hangs up.

        Raises `RequestError` for what the server refuses, else `BackendError`.
        """
        try:
            async with await self._post(f"{self.url}{path}", body, request_id) as answer:
                self._answers.add(answer)
                try:
                    async with asyncio.timeout(self._timeout):
                        await _check(answer)
                    async for events in _events(answer.content, self._timeout):
                        yield events
                finally:
                    self._answers.discard(answer)
                    answer.close()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._lost(error) from error

    async def _post(self, url: str, body: bytes, request_id: str) -> aiohttp.ClientResponse:
        """Try again where a connection broke before the answer began: often an idle one, closed just then."""
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._open().post(url, data=body, headers=headers, allow_redirects=False)
            except aiohttp.ClientConnectionError as error:
                if isinstance(error, TimeoutError):
                    raise
                await asyncio.sleep(PAUSE)
        return await self._open().post(url, data=body, headers=headers, allow_redirects=False)

    def _open(self) -> aiohttp.ClientSession:
        self.check()
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._timeout)
            # The engine behind decides how many it serves at once.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, headers=self._headers)
        return self._session

    def _lost(self, error: Exception) -> BackendUnavailable:
        if self._closed:
            return BackendUnavailable("the server is stopping")
        if isinstance(error, TimeoutError):
            return BackendUnavailable(f"the server behind ({self.url}) does not answer in time")
        reason = str(error) or type(error).__name__
        return BackendUnavailable(f"the server behind ({self.url}) can't be reached, or broke off: {reason}")


def failure(status: int, error: ErrorBody) -> FllmError:
    """The server's refusal or failure as ours."""
    message = error.message or f"HTTP {status}"
    code = error.code if isinstance(error.code, str) else None
    match status:
        case 400 | 413 | 422:
            return RequestError(message, param=error.param, code=code)
        case 408 | 429 | 502 | 503 | 504:
            return BackendUnavailable(f"the server behind has no room, or is not ready: {message}")
        case _:
            # A wrong key or path is the operator's to mend, and no fault of the client's.
            return BackendError(f"the server behind failed with {status}: {message}")


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise failure(answer.status, read_error(await answer.read()))


def read_error(body: bytes) -> ErrorBody:
    """What an error page says, whichever shape it has."""
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except msgspec.DecodeError:
        return ErrorBody(body[:200].decode(errors="replace").strip())
    if isinstance(envelope.error, ErrorBody):
        return envelope.error
    return ErrorBody(envelope.error or envelope.message or envelope.detail or "", param=envelope.param)


async def _events(content: aiohttp.StreamReader, seconds: float) -> AsyncGenerator[list[bytes]]:
    rest = b""
    while True:
        # aiohttp's own time-out ends with the connection, and its reader may wait on: after a broken chunk.
        async with asyncio.timeout(seconds):
            data = await content.readany()
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        events = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        if _DONE in events:
            yield events[: events.index(_DONE)]
            return
        if events:
            yield events
