"""What a worker's child answers. Its parent believes nothing of it but these few types."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class Ready(Struct, frozen=True, tag=True):
    """It waits for work."""


class Done(Struct, frozen=True, tag=True):
    """The work's result."""

    result: bytes


class Refused(Struct, frozen=True, tag=True):
    """The work is at fault; ``spent``: and has left the child without memory."""

    message: str
    param: str | None = None
    spent: bool = False


class Failed(Struct, frozen=True, tag=True):
    """We are at fault."""

    message: str


Answer: TypeAlias = Ready | Done | Refused | Failed
