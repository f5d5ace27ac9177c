"""Standard streams that are closed when the process starts."""

from __future__ import annotations

import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
"""Names and modes of the standard streams, by file descriptor."""


def open_standard_streams() -> None:
    """Open the null device in the place of each standard stream that is closed.

    Otherwise the next socket or file gets its descriptor, and what is printed goes there. libuv aborts the
    process if one of its own descriptors is so low.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < len(STREAMS):
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate(STREAMS):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
