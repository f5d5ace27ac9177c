"""Read single keys, without Enter and without echo."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def keyboard() -> Iterator[Callable[[], bytes]]:
    """Yield a function that returns the keys pressed since its last call; none without a terminal."""
    if not sys.stdin.isatty():
        yield bytes
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield lambda: _read(terminal)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _read(terminal: int) -> bytes:
    ready, _, _ = select.select([terminal], [], [], 0)
    return os.read(terminal, 64) if ready else b""
