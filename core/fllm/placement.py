"""Interfaces of placements: plugins that decide where the process of an engine runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from fllm.config import BackendConfig


class EngineLaunch(Struct, frozen=True, kw_only=True):
    """One process to start: ``python ARGUMENTS``. It connects to the server by itself and serves an engine.

    All values are plain data, so a launch can be sent to another machine. `start_process` starts one there.
    """

    name: str
    """Name of the engine, such as ``replica-0``. At most one process of a name runs at a time."""
    id: str
    """The name, if it is not long, and a number that no other launch of this server has: ``replica-0.3``."""
    config: BackendConfig
    """Settings of the engine: its ``devices``, and what else decides where it fits."""
    arguments: tuple[str, ...]
    """Arguments of the Python interpreter. They contain no secret."""
    stdin: bytes = b""
    """A secret that the process reads from its standard input. Empty: it reads nothing.

    Keep the input open afterwards: the process ends when it ends.
    """
    environment: Mapping[str, str] = {}
    """Variables to set where the process runs, unless they are set there."""
    descriptor: int | None = None
    """A socket that the process inherits, if `Placement.server_address` is ``None``."""


class PlacedEngine(Protocol):
    """The process of one engine that a placement has started."""

    @property
    def node(self) -> str:
        """Name of the machine on which it runs, for logs and metrics; empty if it is unknown."""
        ...

    async def wait(self) -> str:
        """Wait until it has ended; return how, such as ``exit status 3`` or ``signal 11``.

        May be called several times, also at once, and after the end.
        """
        ...

    def kill(self) -> None:
        """Begin to kill it, and return; `wait` returns when it is gone. Do nothing if it has ended."""
        ...


class Placement(Protocol):
    """Starts engines somewhere. The methods are called on the event loop of the server."""

    @property
    def server_address(self) -> str | None:
        """Host name or address of the server, where the engines run; read after `open`.

        The server listens there, and engines connect to it. `reachable_address` finds one for other machines.
        ``None``: engines are children of the server and inherit a socket.
        """
        ...

    async def open(self) -> None:
        """Connect to what starts the engines. Called once.

        Raise `UserError` for what the operator can fix.
        """
        ...

    async def place(self, launch: EngineLaunch) -> PlacedEngine:
        """Start a process, and return once it runs; it need not have connected.

        Calls may overlap. A call that is cancelled, or that raises, leaves no process behind. Raise
        `BackendUnavailable` if there is no room now: it is tried again later.
        """
        ...

    async def close(self) -> None:
        """Kill what still runs, and release all resources. Called once, also if `open` has failed."""
        ...


class PlacementContext(Struct, frozen=True, kw_only=True):
    """What the server provides to a placement."""

    options: Mapping[str, str] = {}
    """``--placement-option KEY=VALUE``; read them with `fllm.placement_options`."""
    plugin_options: Any = None
    """Options of the plugin: a value of its ``FLLM_OPTIONS``, or ``None`` if it declares none."""


PlacementFactory = Callable[[PlacementContext], Placement]
