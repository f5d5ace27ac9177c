"""Engines of a placement that is not ours: they connect over TCP, end, come back, and may be hostile."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw, msgpack
from support.remote_placement import RemotePlacement

from fllm import (
    BackendConfig,
    BackendContext,
    BackendError,
    BackendUnavailable,
    ConfigError,
    EngineLaunch,
    EngineOutput,
    EngineStats,
    GenerateRequest,
    ModelCard,
    PlacedEngine,
    PlacementContext,
    PluginConfig,
    PluginError,
    Progress,
    SamplingParams,
    TokenLogprob,
)
from fllm.config import EngineNetwork
from fllm.engine_host import Channel, EngineHost, dial, read_ticket
from fllm.engine_host import host as host_module
from fllm.engine_host.local import LocalPlacement
from fllm_backends.process import backend as backend_module
from fllm_backends.process import child_process as engine_module
from fllm_backends.process import messages, open_request, process_backend
from fllm_backends.process.backend import ProcessBackend
from fllm_backends.process.child import EngineServer
from fllm_backends.process.child_process import CHILD_MODULE
from fllm_backends.process.messages import messages_version

PLUGIN = Path(__file__).with_name("inner_backend.py")
PLAIN = EngineNetwork()
CARD = ModelCard(tokenizer="nowhere", max_model_len=64)


class Site:
    """A placement, and a backend whose engine it places."""

    def __init__(self, placement: Any, network: EngineNetwork, **options: Any) -> None:
        self.placement = placement
        self.host = EngineHost(lambda name: lambda context: placement, network)
        context = BackendContext(plugins=PluginConfig(paths=(str(PLUGIN),)), engine_host=self.host)
        config = BackendConfig(
            model="none", chain=("echo",), placement="tested", engine_name="replica-0", **options
        )
        backend = process_backend(config, context)
        assert isinstance(backend, ProcessBackend)
        self.backend = backend


@asynccontextmanager
async def site(
    placement: Any, network: EngineNetwork = PLAIN, *, start: bool = True, **options: Any
) -> AsyncIterator[Site]:
    made = Site(placement, network, **options)
    try:
        if start:
            await made.backend.start()
        yield made
    finally:
        await made.backend.stop()
        await made.host.close()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(limited())


def remote(**options: str) -> RemotePlacement:
    return RemotePlacement(PlacementContext(options=options))


def prompt(*tokens: int, how: str = "", **sampling: Any) -> GenerateRequest:
    return GenerateRequest("request", list(tokens), SamplingParams(**{"max_tokens": 99, **sampling}), how)


async def tokens(backend: ProcessBackend, request: GenerateRequest) -> list[int]:
    return [token async for step in backend.generate(request) for token in step.token_ids]


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def available(backend: ProcessBackend) -> None:
    while True:
        with suppress(BackendUnavailable):
            await backend.status()
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("network", [EngineNetwork(), EngineNetwork(tls=True)], ids=["plain", "tls"])
def test_an_engine_that_dies_is_placed_again(
    network: EngineNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with site(remote(), network) as made:
            assert await tokens(made.backend, prompt(1, 2, 3)) == [1, 2, 3]
            with pytest.raises(BackendUnavailable, match=r"died \(status -9\)"):
                await tokens(made.backend, prompt(1, how="die"))
            await available(made.backend)
            assert await tokens(made.backend, prompt(4, 5)) == [4, 5]
            launches = made.placement.launches
            assert [(each.name, each.id) for each in launches] == [
                ("replica-0", "replica-0.0"),
                ("replica-0", "replica-0.1"),
            ]
            assert launches[0].stdin != launches[1].stdin
        assert made.placement.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    caplog.set_level(logging.INFO, "fllm.engine")
    run(scenario())
    assert caplog.messages == [
        "replica-0: the engine process died (status -9); it is started again in 0 s",
        "replica-0: the engine is ready again",
    ]


def test_the_server_reads_the_files_that_an_engine_sends(tmp_path: Path) -> None:
    sent = {
        "tokenizer.json": "t" * 5_000_000,
        "tokenizer_config.json": "{}",
        "config.json": "",
        "chat_template.jinja": "hello",
        "additional_chat_templates/tool_use.jinja": "tools",
    }
    kept = {"model.safetensors.index.json": "tensors", ".hidden.json": "", "a b.json": "", "weights.bin": "w"}
    for name, text in {**sent, **kept}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    async def scenario() -> None:
        directories = set()
        async with site(remote(), start=False, options={"tokenizer": str(tmp_path)}) as made:
            for _ in range(2):
                card = await made.backend.start()
                directories.add(card.tokenizer)
                await made.backend.stop()
                made.backend._engine = made.backend._new_engine()
            [directory] = map(Path, directories)
            assert directory != tmp_path
            files = {file.relative_to(directory).as_posix(): file for file in directory.rglob("*")}
            assert {name: file.read_text() for name, file in files.items() if file.is_file()} == sent
        assert not directory.exists()

    run(scenario())


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([messages.ModelFile("../x.json", b"")], "can't be decoded"),
        ([messages.ModelFile("/etc/x.json", b"")], "can't be decoded"),
        ([messages.ModelFile("x.json\n", b"")], "can't be decoded"),
        ([messages.ModelFile("x.py", b"")], "can't be decoded"),
        ([messages.ModelFile(f"x{number}.json", b"") for number in range(101)], "more than 100"),
        ([messages.ModelFile("x.json", b"x" * 600)] * 2, "or too large"),
    ],
)
def test_files_that_lead_elsewhere_or_are_too_many_end_the_engine(
    files: list[messages.ModelFile], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "MAX_RESULT_BYTES", 1000 if "large" in reason else 1 << 20)

    async def scenario() -> None:
        hostile = Hostile()
        hostile.first = files
        async with site(hostile, start=False) as made:
            with pytest.raises(BackendUnavailable, match=reason):
                await made.backend.start()

    run(scenario())


def test_large_messages_arrive_complete() -> None:
    async def scenario() -> None:
        many = list(range(300_000))
        async with site(remote()) as made:
            assert await tokens(made.backend, prompt(*many, how="at once")) == many

    run(scenario())


@pytest.mark.parametrize("how", ["wait", "hang"])
def test_an_engine_ends_with_its_standard_input(how: str) -> None:
    async def scenario() -> None:
        async with site(remote()) as made:
            waiting = asyncio.create_task(tokens(made.backend, prompt(1, how=how)))
            await asyncio.sleep(0.05)
            made.placement.engines[0]._process.stdin.close()
            with pytest.raises(BackendUnavailable, match=r"died \(status 1\)|connection .* was lost"):
                await waiting
            await made.placement.engines[0].wait()

    run(scenario())


def test_an_engine_whose_connection_ends_is_killed_and_placed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "EXIT_GRACE_SECONDS", 0.1)

    async def scenario() -> None:
        async with site(remote()) as made:
            os.kill(made.placement.engines[0].pid, signal.SIGSTOP)
            made.backend._engine._channel.abort()
            await until(lambda: len(made.placement.engines) == 2)
            await available(made.backend)
            assert await made.placement.engines[0].wait() == "status -9"

    run(scenario())


def test_a_process_without_a_ticket_ends_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", CHILD_MODULE], input=b"", capture_output=True, timeout=20, check=False
    )
    assert done.returncode == 1
    [line] = done.stderr.decode().splitlines()
    assert "the engine exits: the standard input has no ticket" in line


class Broken(RemotePlacement):
    """Fails where ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__(PlacementContext())
        self.how = how

    async def open(self) -> None:
        if self.how == "open":
            raise OSError("the cluster is down")

    async def place(self, launch: EngineLaunch) -> Any:
        if self.how == "place":
            raise KeyError("no node")
        if self.how == "room":
            raise BackendUnavailable("no room")
        engine = await super().place(launch)
        if self.how == "no connection":
            os.kill(engine.pid, signal.SIGSTOP)
        if self.how == "dies":
            engine.kill()
        return engine


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("open", PluginError, "the placement 'tested' can't be used: OSError: the cluster is down"),
        ("place", BackendUnavailable, "the placement 'tested' can't start an engine: KeyError: 'no node'"),
        ("room", BackendUnavailable, "no room"),
        ("dies", BackendUnavailable, r"the engine process died before it connected \(status -9\)"),
        (
            "no connection",
            BackendUnavailable,
            r"on elsewhere has not connected to 127.0.0.1:\d+ within 0.3 s",
        ),
    ],
)
def test_an_engine_that_can_not_be_placed_is_one_error_and_nothing_is_left(
    how: str, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "no connection":
        monkeypatch.setattr(host_module, "CONNECT_TIMEOUT", 0.3)

    async def scenario() -> None:
        async with site(Broken(how), start=False) as made:
            with pytest.raises(kind, match=message):
                await made.backend.start()
            for engine in made.placement.engines:
                assert await engine.wait() == "status -9"
        assert made.placement.closed == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())


def test_a_start_that_is_cancelled_leaves_no_engine() -> None:
    async def scenario() -> None:
        async with site(Broken("no connection"), start=False) as made:
            starting = asyncio.create_task(made.backend.start())
            await until(lambda: made.placement.engines)
            starting.cancel()
            await asyncio.wait([starting])
            assert await made.placement.engines[0].wait() == "status -9"

    run(scenario())


def test_options_of_connections_are_an_error_if_engines_do_not_connect() -> None:
    async def scenario() -> None:
        host = EngineHost(lambda name: LocalPlacement, EngineNetwork(tls=True))
        context = BackendContext(plugins=PluginConfig(paths=(str(PLUGIN),)), engine_host=host)
        config = BackendConfig(model="none", chain=("echo",), placement="here")
        with pytest.raises(ConfigError, match="engines of --placement here do not connect over a network"):
            await process_backend(config, context).start()
        await host.close()

    run(scenario())


@pytest.mark.parametrize(
    ("network", "address", "reached"),
    [
        (EngineNetwork(), "127.0.0.1", "127.0.0.1"),
        (EngineNetwork(listen=("0.0.0.0", 0)), "127.0.0.2", "127.0.0.2"),
        (EngineNetwork(listen=("127.0.0.3", 0)), "127.0.0.1", "127.0.0.3"),
        (EngineNetwork(listen=("0.0.0.0", 0), advertise=("localhost", None)), "10.9.9.9", "localhost"),
    ],
)
def test_engines_connect_to_the_address_that_is_advertised(
    network: EngineNetwork, address: str, reached: str
) -> None:
    async def scenario() -> None:
        async with site(remote(address=address), network) as made:
            ticket = read_ticket(BytesIO(made.placement.launches[0].stdin))
            assert ticket.host == reached
            assert await tokens(made.backend, prompt(1)) == [1]

    run(scenario())


class Hostile:
    """A placement whose engines run in this process and send what the test wants."""

    server_address = "127.0.0.1"

    def __init__(self) -> None:
        self.channels: list[Channel[Any]] = []
        self.received: list[Any] = []
        self.version = messages_version()
        self.deaf = False
        self.first: list[Any] = []
        """Sent before the engine has started."""

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        for channel in self.channels:
            channel.close()

    async def place(self, launch: EngineLaunch) -> PlacedEngine:
        channel: Channel[Any] = Channel(msgpack.Decoder(messages.ToChild).decode, self._receive)
        self.channels.append(channel)
        return HostileEngine(
            asyncio.create_task(dial(read_ticket(BytesIO(launch.stdin)), channel, self.version)),
            channel,
            self,
        )

    def send(self, *sent: Any) -> None:
        for message in sent:
            self.channels[-1].send(message)

    def _receive(self, message: Any) -> None:
        self.received.append(message)
        if isinstance(message, messages.Start):
            self.send(*self.first, messages.Started(CARD))
        if isinstance(message, messages.Stop):
            self.channels[-1].close()


class HostileEngine:
    node = "nowhere"

    def __init__(self, dialing: asyncio.Task[None], channel: Channel[Any], placement: Hostile) -> None:
        self._dialing = dialing
        self._channel = channel
        self._placement = placement

    async def wait(self) -> str:
        await asyncio.wait([self._dialing])
        if self._dialing.exception() is None:
            await self._channel.closed.wait()
        if self._placement.deaf:
            await asyncio.sleep(3600)
        return "ended"

    def kill(self) -> None:
        self._channel.abort()


LOGPROB = TokenLogprob(1, -0.5, tuple((token, -0.5) for token in range(1000)))


@pytest.mark.parametrize(
    "flood",
    [
        [messages.Outputs([(0, EngineOutput(token_ids=[0] * 1000))] * 10)],
        [messages.Outputs([(0, EngineOutput())] * 3000)] * 4,
        [messages.Outputs([(0, EngineOutput(token_ids=[1], logprobs=[LOGPROB]))] * 10)],
        [messages.Outputs([(0, EngineOutput(token_ids=[1], prompt_logprobs=[LOGPROB]))] * 10)],
        [*[messages.PromptLogprobs(0, [LOGPROB])] * 10, messages.Outputs([(0, EngineOutput())])],
    ],
    ids=["tokens", "empty outputs", "log-probabilities", "of the prompt", "of the prompt in parts"],
)
def test_an_engine_that_sends_more_than_was_requested_fails_the_request_alone(
    flood: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_request, "SPARE", 2000)

    async def scenario() -> None:
        hostile = Hostile()
        async with site(hostile) as made:
            generating = asyncio.create_task(tokens(made.backend, prompt(1)))
            await until(lambda: any(isinstance(each, messages.Generate) for each in hostile.received))
            hostile.send(*flood)
            with pytest.raises(BackendError, match="more than the request can have"):
                await generating
            await until(lambda: messages.Abort(0) in hostile.received)
            assert made.backend._engine._requests == {}
            assert made.backend._engine.unavailable_reason is None

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\xc1", "can't be decoded"),
        (b"\x92\xa6Nobody\x00", "can't be decoded"),
        (msgpack.encode(["Failed", 0, "errno", "text", None, None]), "'errno' is not an error"),
        (msgpack.encode(["Outputs", [[0, {}]] * (messages.MAX_OUTPUTS + 1)]), "Expected `array` of length"),
        (b"\x92\xa6Status" + b"\x91" * 2000, "can't be decoded"),
        (msgpack.encode(["CacheChanged", {"gained": [b"h" * 65], "lost": []}]), "length <= 64"),
        (b"\x93\xa7Outputs" + bytes(messages.MAX_MESSAGE_BYTES), "more than 16777216"),
    ],
)
def test_a_message_that_can_not_be_read_ends_the_engine_and_not_the_server(
    frame: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        hostile = Hostile()
        async with site(hostile) as made:
            hostile.send(Raw(frame))  # type: ignore[arg-type]
            await until(lambda: len(hostile.channels) == 2)
            await available_again(made)

    async def available_again(made: Site) -> None:
        await until(lambda: made.backend._engine.unavailable_reason is None)

    caplog.set_level(logging.INFO, "fllm.engine")
    run(scenario())
    first, second, third = caplog.messages
    assert first.startswith("the connection of an engine ends: ")
    assert reason in first
    assert second.startswith("replica-0: the engine process was killed: ")
    assert third == "replica-0: the engine is ready again"


def test_messages_that_nobody_waits_for_change_nothing() -> None:
    async def scenario() -> None:
        hostile = Hostile()
        async with site(hostile) as made:
            hostile.send(
                messages.Started(CARD),
                messages.Returned(7, Raw(b"\xc0")),
                messages.Status(EngineStats()),
                messages.Failed.from_error(9, BackendError("no")),
                messages.Outputs([(5, EngineOutput())]),
                messages.PromptLogprobs(5, [None]),
                messages.LoadProgress(Progress("x", -1, -5)),
            )
            await asyncio.sleep(0.05)
            assert made.backend._engine.unavailable_reason is None
            assert made.backend._engine._requests == {}

    run(scenario())


@pytest.mark.parametrize("result", [b"\x01", b"\x81\xa4keys\x91\x01", b"\x80"])
def test_a_result_of_another_type_is_an_error_of_its_call(result: bytes) -> None:
    async def scenario() -> None:
        hostile = Hostile()
        async with site(hostile) as made:
            calling = asyncio.create_task(made.backend.prepare_images([b"x"], "me"))
            await until(lambda: any(isinstance(each, messages.Call) for each in hostile.received))
            hostile.send(messages.Returned(0, Raw(result)))
            with pytest.raises(BackendError, match="the engine's result of prepare_images is invalid"):
                await calling

    run(scenario())


def test_an_engine_of_another_version_is_an_error_that_names_both() -> None:
    async def scenario() -> None:
        hostile = Hostile()
        hostile.version = "0.0.1"
        async with site(hostile, start=False) as made:
            with pytest.raises(
                ConfigError, match=r"has furiosa-llm 0\.0\.1, and this server has \d.*messages"
            ):
                await made.backend.start()

    run(scenario())


def test_a_placement_that_does_not_notice_the_end_of_an_engine_does_not_keep_it_from_coming_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "EXIT_TIMEOUT", 0.1)
    monkeypatch.setattr(engine_module, "EXIT_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(backend_module, "HEALTHY_SECONDS", 0.0)

    async def scenario() -> None:
        hostile = Hostile()
        hostile.deaf = True
        async with site(hostile) as made:
            stream = made.backend.generate(prompt(1))
            first = asyncio.create_task(anext(stream))
            await asyncio.sleep(0.05)
            hostile.channels[0].abort()
            with pytest.raises(BackendUnavailable, match="the connection to the engine process was lost"):
                await first
            await until(lambda: made.backend._engine.unavailable_reason is None)
            assert len(hostile.channels) == 2
            hostile.deaf = False

    run(scenario())


class Endless:
    """A backend that generates as fast as it is asked."""

    def __init__(self) -> None:
        self.generated = 0

    async def generate(self, request: GenerateRequest) -> AsyncIterator[EngineOutput]:
        while True:
            self.generated += 1
            yield EngineOutput(token_ids=[1] * 1000)
            await asyncio.sleep(0)


def test_an_engine_waits_for_a_server_that_does_not_read() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        server, backend = EngineServer(), Endless()
        server._backend = backend  # type: ignore[assignment]
        await asyncio.get_running_loop().create_unix_connection(lambda: server.channel, sock=ours)
        for key in range(3):
            server._receive(messages.Generate(key, prompt(1)))
        await until(lambda: server.channel.congested)
        for _ in range(10):
            await asyncio.sleep(0)
        before = backend.generated
        await asyncio.sleep(0.05)
        assert backend.generated == before
        assert server.channel.transport.get_write_buffer_size() < 1_000_000
        theirs.setblocking(False)
        while backend.generated == before:
            with suppress(BlockingIOError):
                theirs.recv(1 << 20)
            await asyncio.sleep(0)
        theirs.close()
        for key in range(3):
            server._abort(key)
        await until(lambda: not server._tasks)
        server.channel.close()

    run(scenario())


def test_a_request_waits_for_an_engine_that_does_not_read() -> None:
    async def scenario() -> None:
        hostile = Hostile()
        async with site(hostile) as made:
            channel = made.backend._engine._channel
            channel.pause_writing()
            waiting = [asyncio.create_task(tokens(made.backend, prompt(1))) for _ in range(3)]
            calling = asyncio.create_task(made.backend.prepare_images([b"x"], "me"))
            await asyncio.sleep(0.05)
            assert made.backend._engine._requests == {}
            waiting[0].cancel()
            channel.resume_writing()
            await until(lambda: len(made.backend._engine._requests) == 2)
            hostile.channels[0].abort()
            for each in (*waiting[1:], calling):
                with pytest.raises(BackendUnavailable):
                    await each

    run(scenario())


def test_an_engine_exits_when_its_server_has_been_silent(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        server = EngineServer(max_silence=0.1)
        serving = asyncio.create_task(server.serve())
        await asyncio.sleep(0.3)
        assert not serving.done()  # nothing is sent while the model loads
        server._backend = Stopped()  # type: ignore[assignment]
        for _ in range(5):
            await asyncio.sleep(0.04)
            server._receive(messages.Abort(1))
        assert not serving.done()
        await serving

    run(scenario())
    assert caplog.messages == ["the server has sent nothing for 0.1 s; the engine exits"]


class Stopped:
    async def stop(self) -> None:
        pass
