"""A placement whose errors name it, whatever its code raises."""

from __future__ import annotations

import logging

from fllm.containment import contained, mapped
from fllm.errors import BackendUnavailable, FllmError, PluginError, format_error
from fllm.placement import EngineLaunch, PlacedEngine, Placement, PlacementContext, PlacementFactory

log = logging.getLogger("fllm.engine")


class ContainedPlacement:
    """Calls a placement, which third parties may have written."""

    def __init__(self, name: str, factory: PlacementFactory, context: PlacementContext) -> None:
        """Create the placement. Raise `UserError` if its options are invalid, or if it can't be used."""
        self.name = name
        with mapped(self._unusable, passing=(FllmError,)):
            self._placement: Placement = factory(context)

    @property
    def server_address(self) -> str | None:
        """Address of the server where the engines run, or ``None``."""
        with mapped(self._unusable, passing=(FllmError,)):
            return self._placement.server_address

    async def open(self) -> None:
        """Open the placement, or close it if that fails."""
        try:
            with mapped(self._unusable, passing=(FllmError,)):
                await self._placement.open()
        except BaseException:
            await self.close()
            raise

    async def place(self, launch: EngineLaunch) -> PlacedEngine:
        """Start an engine; raise `BackendUnavailable` for an error that is none of ours."""
        with mapped(self._failed, passing=(FllmError,)):
            return ContainedEngine(self.name, await self._placement.place(launch))

    async def close(self) -> None:
        """Close the placement; an error is logged."""
        with contained(self._log):
            await self._placement.close()

    def _unusable(self, error: BaseException) -> BaseException:
        return PluginError(f"the placement {self.name!r} can't be used: {format_error(error)}")

    def _failed(self, error: BaseException) -> BaseException:
        return BackendUnavailable(f"the placement {self.name!r} can't start an engine: {format_error(error)}")

    def _log(self, error: BaseException) -> None:
        log.error("the placement %r failed: %s", self.name, format_error(error))


class ContainedEngine:
    """Calls an engine of a placement."""

    def __init__(self, placement: str, engine: PlacedEngine) -> None:
        self.node = engine.node
        self._placement = placement
        self._engine = engine

    async def wait(self) -> str:
        """Return how the engine ended. An error counts as its end, because nobody watches it any longer."""
        error: list[BaseException] = []
        with contained(error.append):
            return await self._engine.wait()
        return f"the placement {self._placement!r} has lost it: {format_error(error[0])}"

    def kill(self) -> None:
        """Kill the engine; an error is logged."""
        with contained(self._log):
            self._engine.kill()

    def _log(self, error: BaseException) -> None:
        log.error("the placement %r can't kill an engine: %s", self._placement, format_error(error))
