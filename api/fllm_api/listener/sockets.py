"""Socket options, and the number of connections that the limit of open files allows."""

from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Iterable

UNSENT_BYTES = 32 * 1024
"""Bytes of a response that the kernel buffers before it sends them; unconfirmed bytes do not count.

Without this limit, a connection to a slow reader buffers megabytes and accepts data in bursts, which looks
like a client that does not read.
"""
IDLE_SECONDS = 60
"""Silence after which the kernel probes a client. Without a reply for as long again, its request ends."""
OTHER_FILES = 256
"""File descriptors reserved for rejected connections, the engine, plugins and files."""

log = logging.getLogger("fllm.server")


def configure_sockets(sockets: Iterable[socket.socket]) -> None:
    """Set the options that accepted connections of TCP inherit, if the system supports them."""
    options = (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", IDLE_SECONDS // 6),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 6),
        (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", UNSENT_BYTES),
    )
    for each in (each for each in sockets if each.family != socket.AF_UNIX):
        for level, name, value in options:
            if (option := getattr(socket, name, None)) is not None:
                each.setsockopt(level, option, value)


def max_connections_for(requested: int) -> int:
    """Return how many connections the limit of open files allows; log a warning if those are fewer."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or requested + OTHER_FILES <= limit:
        return requested
    possible = max(1, limit - OTHER_FILES)
    log.warning("--max-connections %d: the limit of %d open files allows only %d", requested, limit, possible)
    return possible
