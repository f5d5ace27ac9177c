"""The contract of placements finds what is wrong with one."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from msgspec.structs import replace
from support.remote_placement import RemotePlacement

from fllm import EngineLaunch, Placement, PlacementContext
from fllm.engine_host.local import LocalPlacement
from fllm.testing import PlacementContract


class TestLocalPlacement(PlacementContract):
    @classmethod
    def placement(cls) -> Placement:
        return LocalPlacement(PlacementContext())


class TestRemotePlacement(PlacementContract):
    @classmethod
    def placement(cls) -> Placement:
        return RemotePlacement(PlacementContext())


class Revealing(RemotePlacement):
    """Puts the secret into the environment."""

    async def place(self, launch: EngineLaunch) -> Any:
        return await super().place(replace(launch, environment={"T": b64encode(launch.stdin).decode()}))


class Immortal(RemotePlacement):
    """Does not kill."""

    async def place(self, launch: EngineLaunch) -> Any:
        engine = await super().place(launch)
        self.kill = engine.kill
        engine.kill = lambda: None  # type: ignore[method-assign]
        return engine

    async def close(self) -> None:
        self.kill()
        await super().close()


class Untold(RemotePlacement):
    """Does not say how an engine ended."""

    async def place(self, launch: EngineLaunch) -> Any:
        engine = await super().place(launch)
        wait = engine.wait

        async def wait_silently() -> str:
            await wait()
            return ""

        engine.wait = wait_silently  # type: ignore[method-assign]
        return engine


@pytest.mark.parametrize(
    ("kind", "test", "message"),
    [
        (Revealing, "test_an_engine_that_is_placed_answers", "write it to the standard input"),
        (Immortal, "test_kill_ends_the_engine", "not done after 2 s"),
        (Untold, "test_wait_says_how_the_engine_ended", "must return how the engine ended"),
    ],
)
def test_a_broken_placement_fails(kind: type[RemotePlacement], test: str, message: str) -> None:
    class Checked(PlacementContract):
        timeout = 2.0

        @classmethod
        def placement(cls) -> Placement:
            return kind(PlacementContext())

    try:
        with pytest.raises(AssertionError, match=message):
            getattr(Checked(), test)()
    finally:
        Checked.teardown_class()
