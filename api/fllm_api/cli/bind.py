"""Taking the port before the model loads; listening comes when the server is ready."""

from __future__ import annotations

import errno
import socket

from fllm.errors import ConfigError


def bind(host: str, port: int) -> list[socket.socket]:
    """One bound socket for each address of ``host``, all on one port; 0 picks a free one.

    Raises `ConfigError` where the host is unknown or the port is taken.
    """
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, name in _addresses(host):
        wanted = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bound(family, name, wanted))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                _close(sockets)
                raise ConfigError(_why(host, wanted, error)) from error
            refused = error  # such as ::1 for localhost on a machine without IPv6
    if not sockets:
        assert refused is not None
        raise ConfigError(_why(host, port, refused)) from refused
    return sockets


def allow_address_reuse(sockets: list[socket.socket]) -> None:
    """Let the port be bound anew as soon as this process has ended, though connections of it linger."""
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def server_url(host: str, sockets: list[socket.socket]) -> str:
    """Where a client on this machine finds the server."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{sockets[0].getsockname()[1]}"


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, name: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((name, port))
        # Otherwise another server could bind it too, as long as neither listens.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        bound.close()
        raise
    return bound


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _why(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} on {host} is in use; choose another, or 0 for a free one"
    return f"--host {host} --port {port}: {error.strerror}"
