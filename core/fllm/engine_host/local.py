"""The placement ``local``: engines are child processes of the server."""

from __future__ import annotations

from fllm.engine_host.process import LocalProcess, start_process
from fllm.placement import EngineLaunch, PlacedEngine, PlacementContext


class LocalPlacement:
    """Starts each engine as a child process that inherits one end of a socket pair."""

    server_address: str | None = None

    def __init__(self, context: PlacementContext) -> None:  # noqa: ARG002
        self._processes: list[LocalProcess] = []

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def place(self, launch: EngineLaunch) -> PlacedEngine:
        """Start a child process."""
        process = await start_process(launch)
        self._processes = [*(process for process in self._processes if process.running), process]
        return process

    async def close(self) -> None:
        """Kill the processes that still run."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            await process.wait()
