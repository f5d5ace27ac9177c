from __future__ import annotations

import logging
import resource
import socket
from collections.abc import Iterator

import pytest

from fllm_api.listener.sockets import OTHER_FILES, configure_sockets, max_connections_for


@pytest.fixture
def files() -> Iterator[tuple[int, int]]:
    """Return the limits of open files, and restore them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_accepted_connections_inherit_what_is_set() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        configure_sockets([listening])
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 32 * 1024


def test_more_connections_than_files_are_a_warning(
    files: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    _, most = files
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert max_connections_for(10) == 10
    assert max_connections_for(most) == most - OTHER_FILES
    [line] = caplog.records
    assert (line.levelno, line.args) == (logging.WARNING, (most, most, most - OTHER_FILES))
