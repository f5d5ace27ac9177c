"""Comments keep a stream alive while there is nothing else to send."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.api_fakes import COMPLETION_SCOPE, a_server, app_of, backend_of

from fllm.errors import RequestError
from fllm_api.app_state import AppState
from fllm_api.serving.event_stream import KEEP_ALIVE, WRITE_BYTES, EventStream

START = {"type": "http.response.start", "status": 200, "headers": []}
SHORT = 0.02


class Wire:
    """The messages of a response, as a client's connection would receive them."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.is_blocked = False
        """Whether the client reads nothing."""
        self.changed = asyncio.Event()

    async def send(self, message: Any) -> None:
        while self.is_blocked:
            await asyncio.sleep(0)
        self.messages.append(message)
        self.changed.set()

    async def start(self, send: Any) -> None:
        await send(START)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.messages) < count:
                self.changed.clear()
                await self.changed.wait()

    @property
    def parts(self) -> list[bytes]:
        assert self.messages[0]["type"] == "http.response.start"
        return [message["body"] for message in self.messages[1:]]


def written(work: Callable[[EventStream, Wire], Awaitable[None]], keep_alive: float) -> list[Any]:
    """Return the messages of a stream."""

    async def go() -> list[Any]:
        wire = Wire()
        async with EventStream(wire.send, wire.start, keep_alive) as stream:  # type: ignore[arg-type]
            await work(stream, wire)
        seen = len(wire.messages)
        await asyncio.sleep(3 * SHORT)
        assert len(wire.messages) == seen, "something was sent after the end"
        return wire.messages

    return asyncio.run(go())


def test_a_silent_stream_sends_its_headers_and_comments() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        assert not stream.started
        await wire.wait_for(4)
        assert stream.started
        assert wire.parts == [KEEP_ALIVE] * 3
        await stream.write(b"data: 1\n\n", more=False)
        assert wire.parts[-1] == b"data: 1\n\n"

    written(work, SHORT)


def test_comments_come_between_events_too() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        await stream.write(b"data: 1\n\n")
        await wire.wait_for(3)
        await stream.write(b"data: 2\n\n", more=False)

    assert [part["body"] for part in written(work, SHORT)[1:]] == [b"data: 1\n\n", KEEP_ALIVE, b"data: 2\n\n"]


def test_a_busy_stream_has_no_comments() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        for _ in range(20):
            await stream.write(b"data: 1\n\n")
            await asyncio.sleep(SHORT / 10)
        await stream.write(b"", more=False)

    assert KEEP_ALIVE not in [part.get("body") for part in written(work, 20 * SHORT)]


def test_zero_means_no_comments() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        await asyncio.sleep(3 * SHORT)
        assert not stream.started

    assert written(work, 0) == []


def test_a_comment_does_not_divide_an_event() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        await stream.write(b"data: 1\n\n")
        wire.is_blocked = True
        writing = asyncio.create_task(stream.write(b"x" * (2 * WRITE_BYTES)))
        await asyncio.sleep(5 * SHORT)
        wire.is_blocked = False
        await writing
        assert KEEP_ALIVE not in wire.parts

    written(work, SHORT)


def test_an_event_waits_for_the_comment_that_is_being_sent() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        wire.is_blocked = True
        while not stream.started:
            await asyncio.sleep(SHORT / 10)
        writing = asyncio.create_task(stream.write(b"data: 1\n\n", more=False))
        await asyncio.sleep(SHORT)
        wire.is_blocked = False
        await writing
        assert wire.parts == [KEEP_ALIVE, b"data: 1\n\n"]

    written(work, SHORT)


def test_a_comment_that_is_being_sent_ends_with_the_stream() -> None:
    async def work(stream: EventStream, wire: Wire) -> None:
        wire.is_blocked = True
        while not stream.started:
            await asyncio.sleep(SHORT / 10)

    assert written(work, SHORT) == []


async def response_to(server: AppState, act: Callable[[list[Any]], Awaitable[None]]) -> list[Any]:
    """Return the messages of a streamed completion; ``act`` runs meanwhile."""
    body = b'{"model": "m", "prompt": "Hi", "stream": true}'
    requests = [{"type": "http.request", "body": body, "more_body": False}]
    messages: list[Any] = []

    async def receive() -> Any:
        if not requests:
            await asyncio.Event().wait()
        return requests.pop()

    async def send(message: Any) -> None:
        messages.append(message)

    async with asyncio.timeout(20):
        running = asyncio.ensure_future(app_of(server)({**COMPLETION_SCOPE}, receive, send))  # type: ignore[arg-type]
        await act(messages)
        await running
    return messages


def test_comments_end_when_the_client_leaves() -> None:
    server = a_server(config={"sse_keep_alive": SHORT})
    backend_of(server).stalls_after = 0
    requests = [b'{"model": "m", "prompt": "Hi", "stream": true}']
    messages: list[Any] = []
    commented = asyncio.Event()

    async def receive() -> Any:
        if requests:
            return {"type": "http.request", "body": requests.pop(), "more_body": False}
        await commented.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)
        if message.get("body") == KEEP_ALIVE:
            commented.set()

    async def go() -> None:
        async with asyncio.timeout(20):
            await app_of(server)({**COMPLETION_SCOPE}, receive, send)  # type: ignore[arg-type]
        seen = len(messages)
        await asyncio.sleep(3 * SHORT)
        assert len(messages) == seen
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(go())
    assert len(backend_of(server).aborted) == 1


@pytest.mark.parametrize(("silence", "status"), [("shorter", 400), ("longer", 200)])
def test_a_failure_has_its_own_status_until_the_first_comment(silence: str, status: int) -> None:
    server = a_server(config={"sse_keep_alive": SHORT if silence == "longer" else 20})
    backend = backend_of(server)
    fails = asyncio.Event()

    async def generate(request: Any) -> Any:
        await fails.wait()
        raise RequestError("no", param="prompt")
        yield

    backend.generate = generate  # type: ignore[method-assign]

    async def act(messages: list[Any]) -> None:
        while silence == "longer" and len(messages) < 2:
            await asyncio.sleep(SHORT / 10)
        fails.set()

    messages = asyncio.run(response_to(server, act))
    assert messages[0]["status"] == status
    text = b"".join(message["body"] for message in messages[1:])
    assert (KEEP_ALIVE in text, b'"param":"prompt"' in text) == (status == 200, True)
    assert text.endswith(b"data: [DONE]\n\n") == (status == 200)
