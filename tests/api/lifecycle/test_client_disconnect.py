"""A client that disconnects frees its sequences, whatever the server is doing for it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.api_fakes import COMPLETION_SCOPE, Recorder, a_server, backend_of

from fllm_api.app import create_app
from fllm_api.app_state import AppState


class Client:
    """An ASGI client that sends a request and disconnects on command."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.disconnects = asyncio.Event()
        self.received = asyncio.Event()
        self.slow = False
        self.messages: list[Any] = []
        self._body: bytes | None = json.dumps({"model": "m", "prompt": "x", **body}).encode()

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.disconnects.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            self.received.set()
            if self.slow:
                await asyncio.Event().wait()


async def disconnect_when(server: AppState, client: Client, ready: asyncio.Event | None) -> None:
    asking = asyncio.create_task(create_app(server)({**COMPLETION_SCOPE}, client.receive, client.send))  # type: ignore[arg-type]
    if ready is not None:
        await ready.wait()
    else:
        while not backend_of(server).prompts:
            await asyncio.sleep(0)
    client.disconnects.set()
    await asyncio.wait_for(asking, 5)


def test_while_a_stream_waits_for_the_next_token() -> None:
    async def go() -> None:
        server = a_server()
        backend_of(server).stalls_after = 1
        client = Client({"stream": True})
        await disconnect_when(server, client, client.received)
        assert backend_of(server).aborted == [backend_of(server).prompts[0].request_id]

    asyncio.run(go())


def test_while_a_stream_is_being_sent_to_a_slow_reader() -> None:
    async def go() -> None:
        server = a_server()
        client = Client({"stream": True})
        client.slow = True
        await disconnect_when(server, client, client.received)
        assert len(backend_of(server).aborted) == 1

    asyncio.run(go())


@pytest.mark.parametrize("stream", [False, True])
def test_before_anything_is_sent(stream: bool) -> None:
    async def go() -> None:
        server = a_server()
        backend_of(server).stalls_after = 0
        client = Client({"stream": stream})
        await disconnect_when(server, client, None)
        assert len(backend_of(server).aborted) == 1
        assert client.messages == []

    asyncio.run(go())


def test_all_sequences_of_the_request_are_freed() -> None:
    async def go() -> None:
        server = a_server()
        backend_of(server).stalls_after = 1
        client = Client({"prompt": ["a", "b"], "n": 2, "stream": True})
        await disconnect_when(server, client, client.received)
        prompts = {prompt.request_id for prompt in backend_of(server).prompts}
        assert len(prompts) == 4
        assert set(backend_of(server).aborted) == prompts

    asyncio.run(go())


def test_collectors_receive_the_disconnect() -> None:
    async def go() -> None:
        recorder = Recorder()
        server = a_server(collectors=[recorder])
        backend_of(server).stalls_after = 0
        await disconnect_when(server, Client({}), None)
        assert recorder.calls == ["on_request_start", "on_request_end the client disconnected"]

    asyncio.run(go())


def test_a_cancelled_request_frees_the_sequence_and_is_reported() -> None:
    async def go() -> None:
        recorder = Recorder()
        server = a_server(collectors=[recorder])
        backend_of(server).stalls_after = 1
        client = Client({"stream": True})
        asking = asyncio.create_task(create_app(server)({**COMPLETION_SCOPE}, client.receive, client.send))  # type: ignore[arg-type]
        await client.received.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(backend_of(server).aborted) == 1
        assert recorder.calls[-1] == "on_request_end the request was cancelled"

    asyncio.run(go())


def test_no_task_is_left() -> None:
    async def go() -> None:
        server = a_server()
        backend_of(server).stalls_after = 1
        client = Client({"stream": True, "n": 2})
        await disconnect_when(server, client, client.received)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(go())


def test_before_the_body_is_complete() -> None:
    async def go() -> None:
        recorder = Recorder()
        server = a_server(collectors=[recorder])
        messages = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Any:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            pass

        await create_app(server)({**COMPLETION_SCOPE}, receive, send)  # type: ignore[arg-type]
        assert recorder.calls == ["on_request_start", "on_request_end the client disconnected"]
        assert recorder.requests[0].status == 499

    asyncio.run(go())
