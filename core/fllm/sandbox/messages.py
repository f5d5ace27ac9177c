"""Messages from the child process to its parent, which trusts only these types."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Ready(Struct, frozen=True, tag=True):
    """The child is ready for tasks."""

    unlimited: tuple[str, ...] = ()
    """What the system does not let it limit, such as ``memory``."""


class Done(Struct, frozen=True, tag=True):
    """The task succeeded."""

    result: bytes
    cpu_seconds: float = 0.0
    """CPU time of the task, also in the messages below."""


class Rejected(Struct, frozen=True, tag=True):
    """The task's input is invalid or exceeds a limit."""

    message: str
    param: str | None = None
    cpu_seconds: float = 0.0
    out_of_memory: bool = False
    code: str | None = None
    """Whether the child has no memory left for further tasks."""


class Crashed(Struct, frozen=True, tag=True):
    """The task failed with an unexpected exception, which is a bug of the server or of a plugin."""

    message: str
    cpu_seconds: float = 0.0


ChildMessage: TypeAlias = Ready | Done | Rejected | Crashed
