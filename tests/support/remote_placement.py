"""A plugin file with a placement of a third party: its engines know an address and a secret, nothing else."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterable
from contextlib import suppress

from msgspec import Struct

import fllm


class RemoteOptions(Struct, frozen=True, kw_only=True):
    node: str = "elsewhere"
    address: str = "127.0.0.1"


class RemoteEngine:
    def __init__(self, node: str, process: Process) -> None:
        self.node = node
        self.pid = process.pid
        self._process = process

    async def wait(self) -> str:
        return f"status {await self._process.wait()}"

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class RemotePlacement:
    """Starts each engine in an empty environment, with no descriptor of the server but its input."""

    def __init__(self, context: fllm.PlacementContext) -> None:
        self._options = fllm.placement_options(context.options, RemoteOptions)
        self.launches: list[fllm.EngineLaunch] = []
        self.engines: list[RemoteEngine] = []
        self.closed = 0

    @property
    def server_address(self) -> str:
        return self._options.address

    async def open(self) -> None:
        pass

    async def place(self, launch: fllm.EngineLaunch) -> RemoteEngine:
        assert launch.descriptor is None
        process = await asyncio.create_subprocess_exec(
            sys.executable, *launch.arguments, stdin=PIPE, env=dict(launch.environment)
        )
        assert process.stdin is not None
        process.stdin.write(launch.stdin)
        self.launches.append(launch)
        self.engines.append(RemoteEngine(self._options.node, process))
        return self.engines[-1]

    async def close(self) -> None:
        self.closed += 1
        for engine in self.engines:
            engine.kill()
        for engine in self.engines:
            await engine.wait()


@fllm.hookimpl
def fllm_placements() -> Iterable[fllm.PlacementEntry]:
    yield fllm.PlacementEntry(
        "remote", f"{__name__}:RemotePlacement", "Processes that connect.", RemoteOptions
    )
