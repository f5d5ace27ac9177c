"""The engine host of a server: it places engines and connects to them."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from fllm.config import BackendConfig
from fllm.engine_host.local import LocalPlacement
from fllm.errors import ConfigError
from fllm.placement import (
    EngineLaunch,
    PlacedEngine,
    Placement,
    PlacementContext,
    PlacementFactory,
)

LOCAL = "local"
"""Name of the placement that needs no plugin."""

PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""Environment that lets OpenMP's idle threads sleep: by default they spin on cores that others need."""


def load_local(name: str) -> PlacementFactory:
    """Return the placement ``local``; raise `ConfigError` for any other name."""
    if name != LOCAL:
        raise ConfigError(f"--placement {name}: only {LOCAL!r} is available here")
    return LocalPlacement


class EngineHost:
    """Places the engines of one server. All its backends share one host; the server closes it."""

    def __init__(self, load: Callable[[str], PlacementFactory] = load_local) -> None:
        self._load = load
        """Imports a placement by name, or raises `UserError`."""
        self._placements: dict[tuple[str, frozenset[tuple[str, str]]], Placement] = {}
        """Those that were opened, by name and options."""
        self._opening = asyncio.Lock()
        self._numbers = itertools.count()

    async def place(
        self, module: str, name: str, config: BackendConfig, connection: asyncio.Protocol
    ) -> PlacedEngine:
        """Start ``python -P -m MODULE`` by the placement of ``config``, and return once it runs.

        ``connection`` is connected when the process has connected and proved who it is; it may still end
        before. Raise `UserError` for what the operator can fix, `BackendUnavailable` if there is no room now.
        """
        placement = await self._placement(config.placement, config.placement_options)
        launch = EngineLaunch(
            name=name,
            id=f"{name}.{next(self._numbers)}",
            config=config,
            arguments=("-P", "-m", module),
            environment=PASSIVE_THREADS,
        )
        return await self._place_child(placement, launch, connection)

    async def close(self) -> None:
        """Kill the engines that still run, and release what starts them."""
        opened, self._placements = self._placements, {}
        for placement in opened.values():
            await placement.close()

    async def _placement(self, name: str, options: Mapping[str, str]) -> Placement:
        """Return the placement with this name and these options, opened."""
        key = (name, frozenset(options.items()))
        async with self._opening:
            if key not in self._placements:
                placement = self._load(name)(PlacementContext(options=options))
                try:
                    await placement.open()
                except BaseException:
                    await placement.close()
                    raise
                self._placements[key] = placement
            return self._placements[key]

    async def _place_child(
        self, placement: Placement, launch: EngineLaunch, connection: asyncio.Protocol
    ) -> PlacedEngine:
        """Start a child that inherits one end of a socket pair; the other end is connected at once."""
        ours, theirs = socket.socketpair()
        with theirs:
            await asyncio.get_running_loop().create_unix_connection(lambda: connection, sock=ours)
            descriptor = theirs.fileno()
            arguments = (*launch.arguments, str(descriptor))
            return await placement.place(replace(launch, arguments=arguments, descriptor=descriptor))
