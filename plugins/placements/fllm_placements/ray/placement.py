"""The placement ``ray``: actors on the nodes of a Ray cluster start the engines."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

from fllm import ConfigError, EngineLaunch, PlacedEngine, PlacementContext, placement_options
from fllm_placements.ray.driver_process import DriverProcess
from fllm_placements.ray.messages import Place
from fllm_placements.ray.options import RayOptions


class RayPlacement:
    """Places engines through a driver process, which is started again when it has died."""

    def __init__(self, context: PlacementContext) -> None:
        """Read the options. Raise `ConfigError` if one is invalid, or if Ray is not installed."""
        self._options = placement_options(context.options, RayOptions)
        if find_spec("ray") is None:
            raise ConfigError("--placement ray: Ray is not installed; pip install 'furiosa-llm-server[ray]'")
        self._driver: DriverProcess | None = None
        self._opening = asyncio.Lock()

    @property
    def server_address(self) -> str:
        """Address of this machine in the cluster."""
        return self._driver.address if self._driver else ""

    async def open(self) -> None:
        """Connect to the cluster. Raise `UserError` if there is none."""
        await self._connected()

    async def place(self, launch: EngineLaunch) -> PlacedEngine:
        """Start an engine on a node that has what the options ask for.

        Raise `BackendUnavailable` if no node has it within ``resource_timeout``.
        """
        driver = await self._connected()
        options = self._options
        bundle = options.bundle(launch.config.devices)
        return await driver.place(Place(launch, bundle, options.strategy, options.resource_timeout))

    async def close(self) -> None:
        """End the driver, and with it all actors and their engines."""
        if self._driver is not None:
            await self._driver.stop()

    async def _connected(self) -> DriverProcess:
        async with self._opening:
            if self._driver is None or self._driver.ended:
                self._driver = None
                self._driver = await DriverProcess.start(self._options.address)
            return self._driver
