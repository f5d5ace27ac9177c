"""The engine host of a server: it places engines and connects to them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec.structs import replace

from fllm.config import BackendConfig, EngineNetwork
from fllm.engine_host.channel import Channel
from fllm.engine_host.contained import ContainedPlacement
from fllm.engine_host.listener import EngineListener
from fllm.engine_host.local import LocalPlacement
from fllm.engine_host.ticket import Ticket
from fllm.engine_host.tls import ServerCertificate, load_certificate, new_certificate
from fllm.errors import BackendUnavailable, ConfigError
from fllm.placement import EngineLaunch, PlacedEngine, PlacementContext, PlacementFactory

LOCAL = "local"
"""Name of the placement that needs no plugin."""

CONNECT_TIMEOUT = 60.0
"""Seconds between the start of a process and its connection: it imports little before."""
KILL_TIMEOUT = 10.0
"""Seconds to wait for the end of an engine that was killed."""

MAX_NAME = 100
"""Characters of an engine's name in its id, which has to fit into the messages before authentication."""

ANY_ADDRESS = ("", "0.0.0.0", "::")

PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""Environment that lets OpenMP's idle threads sleep: by default they spin on cores that others need."""


def load_local(name: str) -> PlacementFactory:
    """Return the placement ``local``; raise `ConfigError` for any other name."""
    if name != LOCAL:
        raise ConfigError(f"--placement {name}: only {LOCAL!r} is available here")
    return LocalPlacement


class EngineHost:
    """Places the engines of one server. All its backends share one host; the server closes it."""

    def __init__(
        self,
        load: Callable[[str], PlacementFactory] = load_local,
        network: EngineNetwork = EngineNetwork(),  # noqa: B008  (frozen)
    ) -> None:
        self._load = load
        """Imports a placement by name, or raises `UserError`."""
        self._network = network
        self._placements: dict[tuple[str, frozenset[tuple[str, str]]], ContainedPlacement] = {}
        """Those that were opened, by name and options."""
        self._listeners: dict[str, tuple[EngineListener, int]] = {}
        """Listeners and their ports, by address."""
        self._lock = asyncio.Lock()
        self._directory: TemporaryDirectory[str] | None = None
        """Files of models that engines have sent."""
        self._numbers = itertools.count()

    async def place(
        self, module: str, config: BackendConfig, channel: Channel[Any], version: Callable[[], str]
    ) -> PlacedEngine:
        """Start ``python -P -m MODULE`` by the placement of ``config``; return once it has connected.

        ``version`` returns that of the messages that the process exchanges over the channel. Raise
        `UserError` for what the operator can fix, `BackendUnavailable` if there is no room or the process
        ends.
        """
        placement = await self._placement(config.placement, config.placement_options)
        launch = EngineLaunch(
            name=config.engine_name,
            id=f"{config.engine_name[:MAX_NAME]}.{next(self._numbers)}",
            config=config,
            arguments=("-P", "-m", module),
            environment=PASSIVE_THREADS,
        )
        if (address := placement.server_address) is None:
            return await self._place_child(placement, launch, channel)
        return await self._place_remote(placement, launch, address, channel, version())

    async def keep_files(self, files: Mapping[str, bytes | bytearray]) -> str:
        """Write small files of a model to a directory that lasts as long as the host; return its path.

        The same files have the same directory. Names are relative paths, which the caller has checked.
        """
        if self._directory is None:
            self._directory = TemporaryDirectory(prefix="fllm-models-", ignore_cleanup_errors=True)
        return await asyncio.to_thread(_write, Path(self._directory.name), files)

    async def close(self) -> None:
        """Kill the engines that still run, and release what starts them."""
        placements, self._placements = self._placements, {}
        for placement in placements.values():
            await placement.close()
        listeners, self._listeners = self._listeners, {}
        for listener, _ in listeners.values():
            await listener.close()
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    async def _placement(self, name: str, options: Mapping[str, str]) -> ContainedPlacement:
        """Return the placement with this name and these options, opened."""
        key = (name, frozenset(options.items()))
        async with self._lock:
            if key not in self._placements:
                placement = ContainedPlacement(name, self._load(name), PlacementContext(options=options))
                await placement.open()
                self._placements[key] = placement
            return self._placements[key]

    async def _place_child(
        self, placement: ContainedPlacement, launch: EngineLaunch, channel: Channel[Any]
    ) -> PlacedEngine:
        """Start a child that inherits one end of a socket pair; the other end is connected at once."""
        if self._network != EngineNetwork() and placement.name != LOCAL:  # which other models may use
            raise ConfigError(
                "--engine-listen, --engine-advertise, --engine-tls: engines of --placement "
                f"{placement.name} do not connect over a network"
            )
        ours, theirs = socket.socketpair()
        with theirs:
            await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
            descriptor = theirs.fileno()
            arguments = (*launch.arguments, str(descriptor))
            return await placement.place(replace(launch, arguments=arguments, descriptor=descriptor))

    async def _place_remote(
        self,
        placement: ContainedPlacement,
        launch: EngineLaunch,
        address: str,
        channel: Channel[Any],
        version: str,
    ) -> PlacedEngine:
        """Start a process that receives a ticket, and wait until it has connected with it."""
        listener, ticket = await self._listener(address)
        expected = listener.expect(launch.id, channel, version)
        try:
            certificate = listener.certificate
            ticket = replace(
                ticket,
                id=launch.id,
                secret=expected.credentials.secret,
                fingerprint=certificate.fingerprint if certificate else None,
            )
            engine = await placement.place(replace(launch, stdin=ticket.encode()))
            try:
                await _connected(engine, expected.connected, f"{ticket.host}:{ticket.port}")
            except BaseException:
                engine.kill()
                await asyncio.shield(asyncio.wait([asyncio.create_task(engine.wait())], timeout=KILL_TIMEOUT))
                raise
            return engine
        finally:
            listener.forget(launch.id)
            expected.connected.cancel()

    async def _listener(self, address: str) -> tuple[EngineListener, Ticket]:
        """Return the listener for engines that reach the server at this address, and how they reach it."""
        host, port = self._network.listen or (address, 0)
        async with self._lock:
            if host not in self._listeners:
                listener = EngineListener(self._certificate())
                self._listeners[host] = listener, await listener.listen(host, port)
            listener, bound = self._listeners[host]
        reached, mapped_port = self._network.advertise or (address if host in ANY_ADDRESS else host, None)
        return listener, Ticket(host=reached, port=mapped_port or bound, id="", secret=b"")

    def _certificate(self) -> ServerCertificate | None:
        if self._network.certfile is not None:
            keyfile = self._network.keyfile
            return load_certificate(Path(self._network.certfile), Path(keyfile) if keyfile else None)
        return new_certificate() if self._network.tls else None


def _write(root: Path, files: Mapping[str, bytes | bytearray]) -> str:
    digest = sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    directory = root / digest.hexdigest()[:32]
    with TemporaryDirectory(dir=root) as new:
        for name, content in files.items():
            file = Path(new) / "files" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if not directory.exists():  # another engine with the same model may have sent them
            (Path(new) / "files").rename(directory)
    return str(directory)


async def _connected(engine: PlacedEngine, connected: asyncio.Future[None], address: str) -> None:
    """Wait until an engine has connected; raise `BackendUnavailable` if it ends before or takes too long."""
    ended = asyncio.create_task(engine.wait())
    ends: list[asyncio.Future[Any]] = [connected, ended]
    try:
        await asyncio.wait(ends, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if connected.done():
            connected.result()
        elif ended.done():
            raise BackendUnavailable(f"the engine process died before it connected ({ended.result()})")
        else:
            raise BackendUnavailable(
                f"the engine on {engine.node or 'its machine'} has not connected to {address} within "
                f"{CONNECT_TIMEOUT:g} s; --engine-listen and --engine-advertise say how it reaches the server"
            )
    finally:
        ended.cancel()
