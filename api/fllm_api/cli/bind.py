"""Bind the port or the unix socket before the model loads. The server listens on it once it is ready."""

from __future__ import annotations

import errno
import fcntl
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

from fllm.errors import ConfigError


def bind(host: str, port: int) -> list[socket.socket]:
    """Return one bound socket per address of ``host``, all on the same port. Port 0 selects a free port.

    Raise `ConfigError` if the host is unknown or the port is in use.
    """
    sockets: list[socket.socket] = []
    unavailable: OSError | None = None
    for family, name in _resolve(host):
        bound_port = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bind_socket(family, name, bound_port))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                _close(sockets)
                raise ConfigError(_bind_error(host, bound_port, error)) from error
            unavailable = error  # for example ::1 for localhost on a machine without IPv6
    if not sockets:
        assert unavailable is not None
        raise ConfigError(_bind_error(host, port, unavailable)) from unavailable
    return sockets


@contextmanager
def bind_unix(path: Path) -> Iterator[list[socket.socket]]:
    """Bind a unix socket, and remove it at exit. A socket that an ended server left is replaced.

    The file ``PATH.lock`` is locked meanwhile, because a server that loads its model does not listen yet.
    Raise `ConfigError` if the path is in use, is another file, or cannot be created.
    """
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(open(f"{path}.lock", "ab"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_stale_socket(path)
            bound = stack.enter_context(socket.socket(socket.AF_UNIX))
            bound.bind(str(path))
        except OSError as error:
            raise ConfigError(_unix_error(path, error)) from error
        stack.callback(path.unlink, missing_ok=True)
        yield [bound]


def allow_address_reuse(sockets: list[socket.socket]) -> None:
    """Allow the next process to bind the port while old connections are in TIME_WAIT."""
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def server_url(host: str, sockets: list[socket.socket], scheme: str = "http") -> str:
    """Return the URL of the server for clients on this machine."""
    if sockets[0].family == socket.AF_UNIX:
        return f"unix:{sockets[0].getsockname()}"
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}:{sockets[0].getsockname()[1]}"


def bound_address(sockets: list[socket.socket]) -> str:
    """Return the option that listens on the same address, with the number of a port that was free."""
    address = sockets[0].getsockname()
    return f"--uds {address}" if sockets[0].family == socket.AF_UNIX else f"--port {address[1]}"


def is_reachable(sockets: list[socket.socket]) -> bool:
    """Return whether other machines can connect."""
    return any(
        each.family != socket.AF_UNIX and not ip_address(each.getsockname()[0].partition("%")[0]).is_loopback
        for each in sockets
    )


def _resolve(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"--host {host}: {error.strerror}") from error
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in addresses))


def _bind_socket(family: socket.AddressFamily, name: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((name, port))
        # With SO_REUSEADDR, another server could bind the port until one of them listens.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        bound.close()
        raise
    return bound


def _remove_stale_socket(path: Path) -> None:
    """Remove a socket on which nobody listens."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _bind_error(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port} on {host} is in use; choose another, or 0 for a free one"
    return f"--host {host} --port {port}: {error.strerror}"


def _unix_error(path: Path, error: OSError) -> str:
    if error.errno == errno.EWOULDBLOCK:
        return f"--uds {path} is in use by another server"
    if error.errno == errno.EADDRINUSE:
        return f"--uds {path} is in use, or is not a socket; choose another path"
    return f"--uds {path}: {error.strerror or error}"
