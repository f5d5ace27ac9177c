"""What the kernel does for the listener."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Iterable

UNSENT_BYTES = 32 * 1024
"""What the kernel holds of an answer before it goes out; what is sent but not confirmed is not in it.

Without it a connection to a slow reader holds megabytes, and takes them in gulps that look like a standstill.
"""
IDLE_SECONDS = 60
"""Then the kernel asks whether a silent client is there, for as long again; if not, its request ends."""
OTHER_FILES = 256
"""Descriptors for everything but connections: the engine, plugins, files."""

log = logging.getLogger("fllm.server")


def tune(sockets: Iterable[socket.socket]) -> None:
    """Set what accepted connections inherit, as far as this system has it."""
    wanted = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", IDLE_SECONDS // 6),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 6),
        (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    )
    for each in sockets:
        for level, name, value in wanted:
            if (option := getattr(socket, name, None)) is not None:
                each.setsockopt(level, option, value)


def connections_possible(wanted: int) -> int:
    """Allow this process all the files that it may have; gives how many connections that allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most == resource.RLIM_INFINITY or wanted + OTHER_FILES <= most:
        return wanted
    possible = max(1, most - OTHER_FILES)
    log.warning("--max-connections %d: the limit of %d open files allows %d", wanted, most, possible)
    return possible
