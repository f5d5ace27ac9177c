"""Messages between `PlacementContract` and the process that it places."""

from __future__ import annotations

from msgspec import Struct

MODULE = "fllm.testing.placed_process"
VERSION = "contract"
"""Version of the messages."""


class Question(Struct, frozen=True):
    """To the process: describe yourself, or exit."""

    exit_status: int | None = None
    """Exit with this status, without an answer."""


class Answer(Struct, frozen=True):
    """From the process."""

    pid: int
    secret_is_visible: bool
    """Whether the secret is among its arguments or in its environment."""
