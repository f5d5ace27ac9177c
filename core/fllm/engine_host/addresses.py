"""Addresses at which engines reach the server, and the settings of their connections."""

from __future__ import annotations

import socket
from contextlib import suppress

KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""The system notices within 25 s that the other machine is gone; the last value is in milliseconds."""

TEST_NETWORK = ("192.0.2.1", 9)
"""An address that no machine has (RFC 5737). No packet is sent to it."""


def reachable_address(towards: str | None = None) -> str:
    """Return the address of this machine from which it sends to another one, by default to any other network.

    ``towards`` is the other's name or address. Without a network: ``127.0.0.1``.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(TEST_NETWORK if towards is None else (towards, 9))
            address: str = probe.getsockname()[0]
            return address
    except OSError:
        return "127.0.0.1"


def detect_loss(connection: socket.socket) -> None:
    """Let the system end a connection whose other end is gone, and send small messages at once."""
    with suppress(OSError):  # the other end may be gone already
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def format_address(host: str, port: int) -> str:
    """Return ``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
