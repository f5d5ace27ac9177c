"""CPU time of functions, with the child processes that work for them. It does not depend on other load."""

from __future__ import annotations

import threading
import time


class _Children(threading.local):
    seconds = 0.0


_children = _Children()


def add_child_seconds(seconds: float) -> None:
    """Add the CPU time that a child process used for the calling thread."""
    _children.seconds += seconds


def thread_seconds() -> float:
    """Return the CPU time of the calling thread so far, with that of child processes."""
    return time.thread_time() + _children.seconds
