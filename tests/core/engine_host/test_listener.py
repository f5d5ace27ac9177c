"""The port of engines: those that are expected connect, and nobody else learns or holds anything."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from msgspec import Struct, msgpack
from msgspec.structs import replace
from support.certificates import certificate

from fllm import BackendUnavailable, ConfigError
from fllm.engine_host import Channel, Ticket, dial
from fllm.engine_host import dial as dial_function
from fllm.engine_host import listener as listener_module
from fllm.engine_host.addresses import KEEPALIVE
from fllm.engine_host.handshake import NONCE_BYTES, EngineHandshake
from fllm.engine_host.listener import EngineListener, Expected
from fllm.engine_host.tls import engine_context, load_certificate, new_certificate

dial_module = __import__(dial_function.__module__, fromlist=["dial"])
LOOPS: tuple[Callable[[], asyncio.AbstractEventLoop], ...] = (
    asyncio.new_event_loop,
    uvloop.new_event_loop,
)


class Note(Struct, frozen=True):
    text: str


class Port:
    """A listener that expects the engine ``e``, and what a client needs to talk to it."""

    def __init__(self, *, tls: bool = False) -> None:
        self.listener = EngineListener(new_certificate() if tls else None)
        self.port = 0
        self.notes: asyncio.Queue[str] = asyncio.Queue()
        self.channel = _channel(self.notes)
        self.expected: Expected = self.listener.expect("e", self.channel, "1")

    @property
    def ticket(self) -> Ticket:
        known, own = self.expected.credentials, self.listener.certificate
        return Ticket(
            host="127.0.0.1",
            port=self.port,
            id="e",
            secret=known.secret,
            fingerprint=own and own.fingerprint,
        )

    async def dial(self, ticket: Ticket | None = None, version: str = "1") -> tuple[Channel[Note], Any]:
        """Connect as the engine; return its channel and the queue of what it receives."""
        notes: asyncio.Queue[str] = asyncio.Queue()
        channel = _channel(notes)
        await dial(ticket or self.ticket, channel, version)
        return channel, notes

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as a stranger."""
        return await asyncio.open_connection("127.0.0.1", self.port, **options)


def _channel(notes: asyncio.Queue[str]) -> Channel[Note]:
    return Channel(msgpack.Decoder(Note).decode, lambda note: notes.put_nowait(note.text), 1000)


@asynccontextmanager
async def listening(*, tls: bool = False) -> AsyncIterator[Port]:
    port = Port(tls=tls)
    port.port = await port.listener.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        port.channel.close()
        await port.listener.close()


def run(
    scenario: Coroutine[Any, Any, None], loop: Callable[[], asyncio.AbstractEventLoop] = LOOPS[0]
) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await scenario

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(limited())


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    """Return everything that still arrives. A connection that is aborted ends, too."""
    received = b""
    while True:
        try:
            part = await reader.read(1000)
        except ConnectionError:
            return received
        if not part:
            return received
        received += part


@pytest.fixture(autouse=True)
def short_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial_module, "DIAL_TIMEOUT", 0.3)
    monkeypatch.setattr(dial_module, "RETRY_DELAY", 0.05)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("tls", [False, True])
def test_an_engine_with_its_ticket_exchanges_messages(
    loop: Callable[[], asyncio.AbstractEventLoop], tls: bool
) -> None:
    async def scenario() -> None:
        async with listening(tls=tls) as port:
            channel, notes = await port.dial()
            await port.expected.connected
            channel.send(Note("to the server"))
            port.channel.send(Note("to the engine"))
            assert (await port.notes.get(), await notes.get()) == ("to the server", "to the engine")
            large = "x" * 900
            for _ in range(100):
                channel.send(Note(large))
            assert [await port.notes.get() for _ in range(100)] == [large] * 100
            channel.close()
            await port.channel.closed.wait()

    run(scenario(), loop)


@pytest.mark.parametrize("end", ["server", "engine"])
def test_the_system_notices_a_machine_that_is_gone(end: str) -> None:
    async def scenario() -> None:
        async with listening() as port:
            channel, _ = await port.dial()
            await port.expected.connected
            transport = (port.channel if end == "server" else channel).transport
            connection: socket.socket = transport.get_extra_info("socket")
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            for name, value in KEEPALIVE.items():
                assert connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
            channel.close()

    run(scenario())


def test_a_ticket_is_valid_for_one_connection() -> None:
    async def scenario() -> None:
        async with listening() as port:
            channel, _ = await port.dial()
            with pytest.raises(BackendUnavailable, match="closed the connection"):
                await port.dial()
            channel.close()

    run(scenario())


def test_an_engine_that_is_no_longer_expected_is_refused() -> None:
    async def scenario() -> None:
        async with listening() as port:
            port.listener.forget("e")
            with pytest.raises(BackendUnavailable, match="closed the connection"):
                await port.dial()

    run(scenario())


@pytest.mark.parametrize("change", [{"secret": b"x" * 32}, {"id": "f"}])
def test_an_engine_with_a_wrong_ticket_is_refused_and_the_right_one_still_connects(
    change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with listening() as port:
            with pytest.raises(BackendUnavailable, match="closed the connection"):
                await port.dial(replace(port.ticket, **change))
            assert not port.expected.connected.done()
            channel, _ = await port.dial()
            channel.close()

    run(scenario())
    [line] = caplog.messages  # although several attempts were refused
    assert "refused: 1; the latest is from 127.0.0.1:" in line
    assert "it is not an engine that this server has started" in line


def test_different_versions_are_an_error_on_both_ends() -> None:
    async def scenario() -> None:
        async with listening() as port:
            with pytest.raises(ConfigError, match=r"has furiosa-llm 1, and this machine 2: install the same"):
                await port.dial(version="2")
            with pytest.raises(
                ConfigError, match=r"engine e at 127.* has furiosa-llm 2, and this server has 1"
            ):
                await port.expected.connected

    run(scenario())


GARBAGE = (
    b"GET / HTTP/1.1\r\nHost: server\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00\x00\x00\x00",
    b"\x00\x00\x00\x28" + bytes(40),
    b"\x00\x00\x04\x01" + bytes(1025),
    b"\xff\xff\xff\xff",
)


@pytest.mark.parametrize("message", GARBAGE)
def test_others_receive_a_challenge_and_nothing_else(message: bytes) -> None:
    async def scenario() -> None:
        async with listening() as port:
            reader, writer = await port.connect()
            writer.write(message)
            received = await rest_of(reader)
            assert len(received) in (0, 4 + NONCE_BYTES)  # an abort may overtake it
            writer.close()
            channel, _ = await port.dial()
            channel.close()

    run(scenario())


def test_a_handshake_in_single_bytes_is_accepted() -> None:
    async def scenario() -> None:
        async with listening() as port:
            reader, writer = await port.connect()
            challenge = (await reader.readexactly(4 + NONCE_BYTES))[4:]
            answer = EngineHandshake(port.ticket.secret, "e", "1").answer(challenge)
            for byte in len(answer).to_bytes(4, "big") + answer:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            await port.expected.connected
            writer.close()

    run(scenario())


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("message", [b"", b"\x00\x00"])
def test_a_connection_that_does_not_authenticate_itself_ends(
    tls: bool, message: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "HANDSHAKE_TIMEOUT", 0.1)

    async def scenario() -> None:
        async with listening(tls=tls) as port:
            reader, writer = await port.connect()
            writer.write(message)
            assert len(await rest_of(reader)) == (0 if tls else 4 + NONCE_BYTES)
            writer.close()
            assert port.listener._pending == {}

    run(scenario())
    assert "has not authenticated itself within 0.1 s" in caplog.text


@pytest.mark.parametrize("tls", [False, True])
def test_many_idle_connections_end_in_order_and_an_engine_still_connects(
    tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "MAX_PENDING", 4)

    async def scenario() -> None:
        async with listening(tls=tls) as port:
            idle = [await port.connect() for _ in range(8)]
            for reader, _ in idle[:4]:
                await rest_of(reader)
            channel, _ = await port.dial()
            assert not idle[-1][0].at_eof()
            assert len(port.listener._pending) <= 4
            for _, writer in idle:
                writer.close()
            channel.close()

    run(scenario())


def test_the_log_has_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(port: Port, count: int) -> None:
        for _ in range(count):
            reader, writer = await port.connect()
            writer.write(b"\xff" * 4)
            await rest_of(reader)
            writer.close()

    async def scenario() -> None:
        async with listening() as port:
            await refuse(port, 3)
            monkeypatch.setattr(listener_module, "LOG_INTERVAL", 0.0)
            await refuse(port, 1)

    run(scenario())
    counts = [line.split("refused: ")[1].split(";")[0] for line in caplog.messages]
    assert counts == ["1", "3"]


def test_a_close_ends_what_has_not_authenticated_itself() -> None:
    async def scenario() -> None:
        async with listening() as port:
            reader, writer = await port.connect()
            await reader.readexactly(4 + NONCE_BYTES)
            await port.listener.close()
            assert await rest_of(reader) == b""
            writer.close()
            with pytest.raises(OSError, match=r"[Cc]onnect"):
                await port.connect()

    run(scenario())


def test_a_port_in_use_is_the_users_error() -> None:
    async def scenario() -> None:
        async with listening() as port:
            with pytest.raises(ConfigError, match=rf"--engine-listen: can't listen on 127.0.0.1:{port.port}"):
                await EngineListener().listen("127.0.0.1", port.port)
            with pytest.raises(ConfigError, match=r"--engine-listen: can't listen on no.such.host.invalid:0"):
                await EngineListener().listen("no.such.host.invalid", 0)

    run(scenario())


def test_a_connection_that_can_not_be_accepted_is_accepted_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener_module, "ACCEPT_DELAY", 0.05)
    accept, failures = socket.socket.accept, [OSError(24, "Too many open files")]

    def accept_later(self: socket.socket) -> Any:
        if failures:
            raise failures.pop()
        return accept(self)

    async def scenario() -> None:
        async with listening() as port:
            monkeypatch.setattr(socket.socket, "accept", accept_later)
            channel, _ = await port.dial()
            channel.close()

    run(scenario())
    assert "can't be accepted: [Errno 24] Too many open files" in caplog.text


class TestTls:
    def test_an_engine_checks_the_certificate_before_it_says_anything(self) -> None:
        async def scenario() -> None:
            async with listening(tls=True) as port:
                other = replace(port.ticket, fingerprint=new_certificate().fingerprint)
                with pytest.raises(ConfigError, match="its certificate is another one"):
                    await port.dial(other)
                assert not port.expected.connected.done()

        run(scenario())

    @pytest.mark.parametrize("server_tls", [False, True])
    def test_both_ends_use_tls_or_none_does(self, server_tls: bool) -> None:
        async def scenario() -> None:
            async with listening(tls=server_tls) as port:
                fingerprint = None if server_tls else b"f" * 32
                with pytest.raises((BackendUnavailable, ConfigError)):
                    await port.dial(replace(port.ticket, fingerprint=fingerprint))
                assert not port.expected.connected.done()

        run(scenario())

    def test_who_speaks_no_tls_is_refused(self, caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with listening(tls=True) as port:
                reader, writer = await port.connect()
                writer.write(GARBAGE[0])
                assert port.expected.credentials.secret not in await rest_of(reader)
                writer.close()

        with caplog.at_level(logging.WARNING):
            run(scenario())
        assert "[SSL: HTTP_REQUEST]" in caplog.text

    def test_who_knows_no_secret_is_refused_inside_tls(self) -> None:
        async def scenario() -> None:
            async with listening(tls=True) as port:
                reader, writer = await port.connect(ssl=engine_context(), server_hostname="")
                writer.write(b"\x00\x00\x00\x28" + bytes(40))
                assert len(await rest_of(reader)) in (0, 4 + NONCE_BYTES)
                writer.close()

        run(scenario())

    def test_earlier_versions_of_tls_are_refused(self) -> None:
        async def scenario() -> None:
            async with listening(tls=True) as port:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.maximum_version = ssl.TLSVersion.TLSv1_2
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await port.connect(ssl=context, server_hostname="")

        run(scenario())

    def test_a_certificate_of_the_operator_is_known_by_its_own_fingerprint(self, tmp_path: Path) -> None:
        certfile, keyfile = certificate(tmp_path)
        der = ssl.PEM_cert_to_DER_cert(certfile.read_text())
        loaded = load_certificate(certfile, keyfile)
        assert loaded.fingerprint == hashlib.sha256(der).digest()
        other, _ = certificate(tmp_path, "authority")
        both = tmp_path / "chain.pem"
        both.write_text(f"a comment\n{certfile.read_text()}{other.read_text()}{keyfile.read_text()}")
        assert load_certificate(both, None).fingerprint == loaded.fingerprint

    def test_a_certificate_that_can_not_be_used_is_the_users_error(self, tmp_path: Path) -> None:
        certfile, keyfile = certificate(tmp_path)
        _, other = certificate(tmp_path, "other")
        locked = certificate(tmp_path, "locked", password="p")
        empty = tmp_path / "empty"
        empty.touch()
        for pair in (
            (certfile, other),
            (certfile, None),
            (empty, keyfile),
            locked,
            (tmp_path / "none", None),
        ):
            with pytest.raises(ConfigError, match="--engine-certfile"):
                load_certificate(*pair)
