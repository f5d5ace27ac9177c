"""The Ray actor of one engine. Ray sends this code to nodes, which may lack the distribution."""

from __future__ import annotations

from importlib import metadata
from typing import Any

DISTRIBUTION = "furiosa-llm-server"


class EngineActor:
    """Starts the process of an engine on the actor's node. The process ends when the actor does."""

    def __init__(self) -> None:
        self._engine: Any = None

    def node(self) -> tuple[str, str]:
        """Return the address and the id of the actor's node."""
        import ray

        return ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()

    async def start(self, launch: bytes, version: str) -> str:
        """Start the process of an encoded `EngineLaunch`; return why that is impossible, or nothing."""
        if problem := missing_distribution(version):
            return problem
        from msgspec import msgpack

        from fllm.engine_host import start_process
        from fllm.placement import EngineLaunch

        self._engine = await start_process(msgpack.decode(launch, type=EngineLaunch))
        return ""

    async def wait(self) -> str:
        """Wait until the process has ended; return how."""
        ended: str = await self._engine.wait()
        return ended

    async def kill(self) -> None:
        """Kill the process."""
        self._engine.kill()


def missing_distribution(version: str) -> str:
    """Return how this node's distribution differs from the server's, or nothing."""
    try:
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return f"{DISTRIBUTION} is not installed there; the server has version {version}"
    return "" if installed == version else f"{DISTRIBUTION} {installed} is installed there, not {version}"
