"""The port is bound before the model loads, and accepts connections only once the server is ready."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from fllm import ConfigError
from fllm_api.cli.bind import allow_address_reuse, bind, server_url


@contextmanager
def bound(host: str, port: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(each) for each in bind(host, port)]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_port_0_selects_one_free_port_for_all_addresses() -> None:
    with bound("localhost", 0) as sockets:
        [port] = {each.getsockname()[1] for each in sockets}
        assert port > 0
        assert server_url("localhost", sockets) == f"http://localhost:{port}"


def test_a_bound_port_refuses_connections_until_it_listens() -> None:
    with bound("127.0.0.1", 0) as [only]:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(only.getsockname())
        only.listen()
        socket.create_connection(only.getsockname()).close()


def test_a_port_in_use_is_an_error_that_names_the_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} on 127.0.0.1 is in use"):
            bind("127.0.0.1", port)


def test_a_port_is_in_use_while_another_server_loads() -> None:
    with bound("127.0.0.1", 0) as [first], pytest.raises(ConfigError, match="is in use"):
        bind("127.0.0.1", first.getsockname()[1])


def test_a_port_can_be_bound_again_while_old_connections_are_in_time_wait() -> None:
    with bound("127.0.0.1", 0) as [server]:
        allow_address_reuse([server])
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()) as client:
            server.accept()[0].close()  # the side that closes first enters TIME_WAIT
            assert client.recv(1) == b""
    with bound("127.0.0.1", port) as [again]:
        assert again.getsockname()[1] == port


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--host 192\.0\.2\.1 --port 0: "):
        bind("192.0.2.1", 0)


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--host nowhere\.invalid: "):
        bind("nowhere.invalid", 0)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_is_in_brackets() -> None:
    with bound("::1", 0) as sockets:
        assert server_url("::1", sockets) == f"http://[::1]:{sockets[0].getsockname()[1]}"
