"""The Ray driver of a server: ``python -m fllm_placements.ray.driver`` obeys messages on its standard input.

Ray's library ends its process when it loses the cluster, writes to standard output, and blocks. Here that
harms no request: the server goes on, and starts another driver. When the input ends, so does the driver, and
Ray ends its actors.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from typing import Any

import ray
from msgspec import msgpack
from ray import cloudpickle
from ray.exceptions import RayError
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fllm_placements.ray import actor as actor_module
from fllm_placements.ray import messages
from fllm_placements.ray.cluster import NoRoomError, preferred_node, reserve
from fllm_placements.ray.messages import Message, ToDriver

NAMESPACE = "furiosa-llm"
NOT_A_NODE = "this machine is not a node of one; see `ray start --help`, or name one with --ray-address"
START_SECONDS = 60.0
"""Time for Ray to start the process of an actor, and for the actor to start the engine's."""
KILL_SECONDS = 3.0
"""Time for an actor to kill its engine. Then the actor is killed, which ends the engine, too."""


class Driver:
    """Places engines on one cluster, each in a task that lasts as long as its engine."""

    def __init__(self, output: int) -> None:
        self._output = output
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._actors: dict[str, Any] = {}
        """Actors whose engines run."""
        self._nodes: dict[str, str] = {}
        """Ids of the nodes of all engines, also of those that are about to start there, oldest first."""
        self._version = ""
        self._name = secrets.token_hex(4)
        """Distinguishes the actors and placement groups of this server from those of others."""

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Process messages until the input ends."""
        decoder = msgpack.Decoder(ToDriver)
        while (message := await messages.read(reader, decoder)) is not None:
            match message:
                case messages.Open():
                    await self._open(message)
                case messages.Place(launch=launch):
                    self._tasks[launch.id] = asyncio.create_task(self._run(message))
                case messages.Kill(id=id):
                    self._kill(id)

    async def _open(self, message: messages.Open) -> None:
        self._version = message.version
        cloudpickle.register_pickle_by_value(actor_module)
        try:
            await asyncio.to_thread(
                ray.init, address=message.address, namespace=NAMESPACE, logging_level=logging.ERROR
            )
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            absent = message.address == "auto" and isinstance(error, ConnectionError)
            self._send(messages.Refused(NOT_A_NODE if absent else first_line(error)))
        else:
            self._send(messages.Opened(ray.util.get_node_ip_address()))

    def _kill(self, id: str) -> None:
        task, actor = self._tasks.get(id), self._actors.get(id)
        if task is None:
            return
        if actor is None:
            task.cancel()
        else:
            actor.kill.remote()
            asyncio.get_running_loop().call_later(KILL_SECONDS, task.cancel)

    async def _run(self, place: messages.Place) -> None:
        id = place.launch.id
        reason = "killed"
        try:
            reason = await self._reserve_and_run(place)
        except NoRoomError as error:
            reason = str(error)
        except TimeoutError:
            reason = f"the Ray actor did not start within {START_SECONDS:g} s"
        except asyncio.CancelledError:  # killed
            pass
        except Exception as error:  # noqa: BLE001 - the edge of an engine: Ray raises many types
            reason = describe(error)
        finally:
            del self._tasks[id]
            self._send(messages.Ended(id, reason))

    async def _reserve_and_run(self, place: messages.Place) -> str:
        """Return how the engine ended, or why it can't be started."""
        id = place.launch.id
        name = f"{id} of {self._name}"
        if target := preferred_node(place, list(self._nodes.values())):
            self._nodes[id] = target
        try:
            group = await reserve(
                place, name, target, lambda reason: self._send(messages.Waiting(id, reason))
            )
        except BaseException:  # passed on: it is not there
            self._nodes.pop(id, None)
            raise
        try:
            actor = new_actor(place, name, group)
            try:
                async with asyncio.timeout(START_SECONDS):
                    address, node = await actor.node.remote()
                    problem = await actor.start.remote(msgpack.encode(place.launch), self._version)
                if problem:
                    return f"the node {address} can't run engines: {problem}"
                return await self._follow(id, address, node, actor)
            finally:
                ray.kill(actor)
        finally:
            self._nodes.pop(id, None)
            remove_placement_group(group)

    async def _follow(self, id: str, address: str, node: str, actor: Any) -> str:
        """Report that the engine runs, and return how it ended."""
        self._actors[id] = actor
        self._nodes[id] = node
        self._send(messages.Placed(id, f"{address}/{node[:8]}"))
        try:
            ended: str = await actor.wait.remote()
            return ended
        finally:
            del self._actors[id]

    def _send(self, message: Message) -> None:
        os.write(self._output, messages.frame(message))


def new_actor(place: messages.Place, name: str, group: PlacementGroup) -> Any:
    """Return an actor with all that the placement group has reserved."""
    bundle = dict(place.bundle)
    options = {
        "name": name,
        "num_cpus": bundle.pop("CPU", 0),
        "num_gpus": bundle.pop("GPU", 0),
        "memory": bundle.pop("memory", None),
        "resources": bundle,
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group),
    }
    return ray.remote(actor_module.EngineActor).options(**options).remote()


def describe(error: Exception) -> str:
    """Return why an engine ended or could not be started, from the lines of Ray's message."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    causes = [line for line in lines if line.startswith(("The actor is dead", "The actor died because"))]
    if causes:
        return f"its Ray actor died: {causes[0].split('. ')[0]}"
    return f"Ray can't run it: {lines[-1]}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


async def _serve(output: int) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await Driver(output).serve(reader)


def main() -> None:
    """Serve until the input ends."""
    output = os.dup(1)
    os.dup2(2, 1)  # what Ray prints must not mix with the messages
    try:
        asyncio.run(_serve(output))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
