"""Connections of TLS, from their first byte."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.certificates import certificate, client_context
from support.listener import RawConnection, RunningListener, echo, listening

from fllm_api.cli.event_loop import loop_factory
from fllm_api.tls import ServerTls, TlsFiles

GET = b"GET /path HTTP/1.1\r\nHost: a\r\n\r\n"

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate(tmp_path_factory.mktemp("tls"))


def within(
    work: Callable[[RunningListener], Coroutine[Any, Any, Any]],
    files: Files,
    app: Any = echo,
    factory: Any = None,
    **options: Any,
) -> Any:
    """Run the work against a server with a certificate."""
    certfile, keyfile = files
    more = options.pop("tls", {})
    tls = ServerTls(TlsFiles(certfile=certfile, keyfile=keyfile, **more))

    async def go() -> Any:
        async with listening(app, tls=tls, **options) as server:
            return await work(server)

    with asyncio.Runner(loop_factory=factory or loop_factory()) as runner:
        return runner.run(go())


@pytest.mark.parametrize("factory", [None, asyncio.new_event_loop])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_requests_are_answered_over_tls(files: Files, factory: Any, version: ssl.TLSVersion) -> None:
    async def work(server: RunningListener) -> None:
        context = client_context(files[0])
        context.minimum_version = context.maximum_version = version
        connection = await server.connect(context)
        for _ in range(3):
            await connection.send(GET)
            response = await connection.read_response()
            parsed = json.loads(response.body)
            assert (response.status, parsed["path"], parsed["scheme"]) == (200, "/path", "https")
            assert parsed["client"][0] == "127.0.0.1"

    within(work, files, factory=factory)


def test_a_request_may_arrive_with_the_end_of_the_handshake(files: Files) -> None:
    """A client of TLS 1.3 sends its request without waiting for the server."""
    context = client_context(files[0])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def work(server: RunningListener) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        client.write(GET)
        writer.write(outgoing.read())
        async with asyncio.timeout(20):
            while True:
                incoming.write(await reader.read(65536))
                try:
                    received = client.read()
                except ssl.SSLWantReadError:
                    continue
                writer.close()
                return received

    assert within(work, files).startswith(b"HTTP/1.1 200 ")


def test_a_large_body_and_response_pass(files: Files) -> None:
    body = b"x" * 3_000_000

    async def work(server: RunningListener) -> None:
        connection = await server.connect(client_context(files[0]))
        await connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        response = await connection.read_response()
        assert json.loads(response.body)["body"] == body.decode()

    within(work, files)


def test_an_invalid_request_gets_its_error_over_tls(files: Files) -> None:
    async def work(server: RunningListener) -> None:
        connection = await server.connect(client_context(files[0]))
        await connection.send(b"GET / HTTP/1.1\r\n\r\n")
        response = await connection.read_response()
        assert (response.status, response.error["type"]) == (400, "invalid_request_error")
        await connection.read_to_end()

    within(work, files)


def test_without_tls_nothing_is_answered(files: Files) -> None:
    async def work(server: RunningListener) -> None:
        plain = await server.connect()
        await plain.send(GET)
        assert b"HTTP/" not in await plain.read_to_end()
        assert (await over_tls(server, files)).status == 200

    within(work, files)


async def over_tls(server: RunningListener, files: Files) -> Any:
    connection = await server.connect(client_context(files[0]))
    await connection.send(GET)
    return await connection.read_response()


def test_a_handshake_that_is_not_completed_is_closed_in_time(files: Files) -> None:
    async def work(server: RunningListener) -> None:
        silent = await server.connect()
        partial = await server.connect()
        await partial.send(b"\x16\x03\x01")
        for connection in (silent, partial):
            await connection.read_to_end()

    within(work, files, read=0.2)


def test_open_handshakes_count_as_connections(files: Files) -> None:
    """A client with more connections than the server accepts closes its own oldest ones."""

    async def work(server: RunningListener) -> None:
        silent = [await server.connect() for _ in range(6)]
        assert (await over_tls(server, files)).status == 200
        ends = [asyncio.create_task(each.read_to_end()) for each in silent]
        done, open_ones = await asyncio.wait(ends, timeout=1)
        assert len(open_ones) <= 3 < len(done) + 1
        for each in open_ones:
            each.cancel()

    within(work, files, max_connections=3)


def test_a_full_server_says_so_over_tls(files: Files) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            started.set()
            await release.wait()
        await echo(scope, receive, send)

    async def work(server: RunningListener) -> None:
        busy = await server.connect(client_context(files[0]))
        await busy.send(GET)
        await started.wait()
        rejected = await server.connect(client_context(files[0]))
        assert (await rejected.read_response()).status == 503
        release.set()
        assert (await busy.read_response()).status == 200

    within(work, files, app=slow, max_connections=1)


def test_the_shutdown_does_not_wait_for_handshakes(files: Files) -> None:
    async def work(server: RunningListener) -> None:
        silent = await server.connect()
        server.listener.drain()
        async with asyncio.timeout(4):
            await server.serving
        assert await silent.read_to_end() == b""

    within(work, files)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return certificate(tmp_path_factory.mktemp("client"), "client")


def test_clients_may_need_a_certificate(files: Files, own: Files) -> None:
    async def work(server: RunningListener) -> tuple[bool, int]:
        without: RawConnection = await server.connect(client_context(files[0]))
        try:
            await without.send(GET)
            refused = b"HTTP/" not in await without.read_to_end()
        except ssl.SSLError:
            refused = True
        connection = await server.connect(client_context(files[0], own))
        await connection.send(GET)
        return refused, (await connection.read_response()).status

    more = {"ca_certs": own[0], "cert_reqs": ssl.CERT_REQUIRED}
    assert within(work, files, tls=more) == (True, 200)


@pytest.mark.parametrize("factory", [None, asyncio.new_event_loop])
def test_a_client_that_does_not_read_is_aborted(files: Files, factory: Any) -> None:
    """What the server keeps for it is bounded, as without TLS."""
    sent = 0
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        if scope["type"] == "lifespan":
            await echo(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting = asyncio.create_task(disconnection(receive))
        while not waiting.done():
            await send({"type": "http.response.body", "body": b"x" * 16384, "more_body": True})
            sent += 16384
            await asyncio.sleep(0)
        ended.set()

    async def disconnection(receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def work(server: RunningListener) -> None:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=client_context(files[0]), limit=1024
        )
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET)
        async with asyncio.timeout(20):
            await ended.wait()
        writer.transport.abort()

    within(work, files, app=endless, factory=factory, write=0.3)
    assert sent < 20_000_000
