"""A scripted OpenAI-compatible server: tests control its bytes, their pieces, and where it disconnects."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

HANG = object()
"""Script item: send nothing more, and keep the connection open."""
CLOSE = object()
"""Script item: close the connection."""

Script = Callable[[dict[str, Any]], Iterable[Any]]
"""Maps the body of a request to the pieces of the response, which are sent separately."""

EVENT_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class WireServer:
    """The requests that the server received."""

    url: str = ""
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the POST requests."""


def chunk(data: bytes) -> bytes:
    """Return a chunk of HTTP's chunked encoding."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def full_response(body: Any, status: str = "200 OK") -> bytes:
    """Return a complete HTTP response."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(data), data)


def error_response(status: str, message: str) -> bytes:
    """Return a response with OpenAI's error envelope."""
    return full_response({"error": {"message": message}}, status)


def tokens(body: dict[str, Any]) -> Iterator[bytes]:
    """Yield a response with ``max_tokens`` tokens, one per chunk if streamed; words are tokens."""
    prompt = body["prompt"] if "prompt" in body else " ".join(each["content"] for each in body["messages"])
    usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": body["max_tokens"]}
    if not body.get("stream"):
        yield full_response({"choices": [{"text": "", "finish_reason": "length"}], "usage": usage})
        return
    yield EVENT_STREAM
    for _ in range(body["max_tokens"]):
        text = {"text": " word"} if "prompt" in body else {"delta": {"content": " word"}}
        yield chunk(event({"choices": [text]}))
    yield chunk(event({"choices": [{"finish_reason": "length"}]}))
    yield chunk(event({"choices": [], "usage": usage}) + event(b"[DONE]")) + LAST_CHUNK


@contextmanager
def scripted_server(script: Script = tokens, models: bytes | None = None) -> Iterator[WireServer]:
    """Run the server in a thread; ``models`` is its complete response for the list of models."""
    server = WireServer()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    models = full_response({"data": [{"id": "the-model"}]}) if models is None else models

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while head := await _head(reader):
                await _respond(server, head, reader, writer, script, models)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):  # the last: by `stop`
            pass
        finally:
            writer.close()

    async def start() -> asyncio.Server:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        return listening

    async def stop(listening: asyncio.Server) -> None:
        listening.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    try:
        listening = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(stop(listening), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return ""


async def _respond(
    server: WireServer,
    head: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    script: Script,
    models: bytes,
) -> None:
    server.heads.append(head)
    if head.startswith("GET"):
        pieces: Iterable[Any] = [models]
    else:
        length = next(line for line in head.splitlines() if line.lower().startswith("content-length:"))
        body = json.loads(await reader.readexactly(int(length.partition(":")[2])))
        server.bodies.append(body)
        pieces = script(body)
    for piece in pieces:
        if piece is CLOSE:
            raise ConnectionResetError
        if piece is HANG:
            await asyncio.Event().wait()
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.001)
