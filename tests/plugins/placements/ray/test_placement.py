"""The placement on a real Ray cluster of two nodes on this machine."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from importlib import metadata
from pathlib import Path

import pytest
from support.fault_server import has_exited
from support.ray_cluster import RayCluster, needs_ray

from fllm import BackendConfig, BackendUnavailable, ConfigError, EngineLaunch, PlacementContext, UserError
from fllm_placements.ray import placement as placement_module
from fllm_placements.ray.actor import missing_distribution
from fllm_placements.ray.placement import RayPlacement

ENGINE = """
import os, sys
secret = sys.stdin.readline()
colour, threads = os.environ["COLOUR"], os.environ["OMP_NUM_THREADS"]
with open({file!r}, "w") as file:
    print(os.getpid(), os.getppid(), repr(secret), colour, threads, file=file)
os.rename({file!r}, {file!r} + ".done")
print("a line of an engine", file=sys.stderr, flush=True)
if {lasting}:
    sys.stdin.read()
sys.exit(3)
"""
"""A process that ends when its standard input does, as engines do, or at once."""


class Engine:
    """What a test knows of an engine's process."""

    def __init__(self, directory: Path, name: str, *, lasting: bool = True) -> None:
        self._file = directory / name
        self.launch = EngineLaunch(
            name=name,
            id=f"{name}.0",
            config=BackendConfig(model="m"),
            arguments=("-c", ENGINE.format(file=str(self._file), lasting=lasting)),
            stdin=b"xyz\n",
            environment={"COLOUR": "blue"},
        )

    async def written(self) -> list[str]:
        done = self._file.with_name(f"{self._file.name}.done")
        async with asyncio.timeout(20):
            while not done.exists():
                await asyncio.sleep(0.02)
        return done.read_text().split()

    async def pids(self) -> tuple[int, int]:
        """Return the ids of its process and of the actor's."""
        pid, actor, *_ = await self.written()
        return int(pid), int(actor)


async def until_exited(pid: int) -> None:
    async with asyncio.timeout(10):
        while not has_exited(pid):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(cluster: RayCluster, **options: str) -> AsyncIterator[RayPlacement]:
    placement = RayPlacement(PlacementContext(options={"address": cluster.address, **options}))
    try:
        await placement.open()
        yield placement
    finally:
        await placement.close()


@needs_ray
def test_engines_run_on_different_nodes_with_what_they_read_and_their_threads(
    cluster: RayCluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        first, second = Engine(tmp_path, "first"), Engine(tmp_path, "second", lasting=False)
        async with opened(cluster) as placement:
            lasting = await placement.place(first.launch)
            ending = await placement.place(second.launch)
            nodes = {each.node.rpartition("/")[2] for each in (lasting, ending)}
            assert nodes == {node[:8] for node in cluster.nodes}
            assert placement.server_address == cluster.address.partition(":")[0]
            assert (await first.written())[2:] == [r"'xyz\n'", "blue", "1"]
            assert await ending.wait() == await ending.wait() == "exit status 3"
            lasting.kill()
            assert (await lasting.wait()).startswith("signal 9")
            lasting.kill()
            assert all(map(has_exited, [(await first.pids())[0]]))
            async with asyncio.timeout(10):
                while "a line of an engine" not in (seen := capfd.readouterr()).err:
                    await asyncio.sleep(0.1)
            assert seen.out == ""

    asyncio.run(scenario())


@needs_ray
def test_an_engine_ends_with_its_actor_and_its_actor_with_the_driver(
    cluster: RayCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        one, two, three = (Engine(tmp_path, name) for name in ("one", "two", "three"))
        async with opened(cluster, strategy="PACK") as placement:
            placed = await placement.place(one.launch)
            neighbour = await placement.place(two.launch)
            assert placed.node == neighbour.node
            pid, actor = await one.pids()
            os.kill(actor, signal.SIGKILL)
            assert await placed.wait() == (
                "its Ray actor died: The actor is dead because its worker process has died"
            )
            await until_exited(pid)
            driver = placement._driver
            assert driver is not None
            driver._process.kill()
            assert await neighbour.wait() == "the Ray driver ended"
            await until_exited((await two.pids())[0])
            await placement.place(three.launch)  # by another driver
            pid, _ = await three.pids()
        await until_exited(pid)

    asyncio.run(scenario())


@needs_ray
def test_without_room_the_error_says_what_is_asked_for_and_what_there_is(
    cluster: RayCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with opened(cluster, num_cpus="3", resource_timeout="0.5", resources="rngd:1") as placement:
            with pytest.raises(BackendUnavailable) as caught:
                await placement.place(Engine(tmp_path, "large").launch)
        host = re.escape(cluster.address.partition(":")[0])
        assert re.search("no node with CPU 3, rngd 1 free", str(caught.value))
        assert re.search(rf"its nodes:.* {host} \(CPU 2, rngd 0\)", str(caught.value))
        assert "waited 0.5 s (--placement-option resource_timeout)" in str(caught.value)
        async with opened(cluster, num_cpus="0.00001") as placement:  # Ray counts in steps of 0.0001
            with pytest.raises(BackendUnavailable, match=r"^Ray can't run it: .*num_cpus"):
                await placement.place(Engine(tmp_path, "tiny").launch)

    asyncio.run(scenario())


@needs_ray
def test_a_placement_that_waits_can_be_cancelled_and_servers_share_a_cluster(
    cluster: RayCluster, tmp_path: Path
) -> None:
    async def scenario() -> None:
        engine = Engine(tmp_path, "same").launch
        async with opened(cluster, num_cpus="2") as first, opened(cluster, num_cpus="2") as second:
            placed, _ = await asyncio.gather(first.place(engine), second.place(engine))
            waiting = asyncio.create_task(first.place(Engine(tmp_path, "cancelled").launch))
            await asyncio.sleep(0.3)
            waiting.cancel()
            await asyncio.wait([waiting])
            placed.kill()
            await first.place(Engine(tmp_path, "last").launch)

    asyncio.run(scenario())


@needs_ray
def test_an_address_without_a_cluster_is_an_error_at_once() -> None:
    async def scenario() -> None:
        with closing(socket.socket()) as bound:
            bound.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{bound.getsockname()[1]}"
            placement = RayPlacement(PlacementContext(options={"address": address}))
            with pytest.raises(UserError, match=f"there is no Ray cluster at {address}: "):
                await placement.open()
            await placement.close()

    asyncio.run(scenario())


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'furiosa-llm-server\[ray\]'"):
        RayPlacement(PlacementContext())


def test_a_node_with_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version("furiosa-llm-server")
    assert missing_distribution(version) == ""
    assert missing_distribution("9.9") == f"furiosa-llm-server {version} is installed there, not 9.9"

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert missing_distribution("9.9") == (
        "furiosa-llm-server is not installed there; the server has version 9.9"
    )
