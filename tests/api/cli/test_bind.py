"""The port is bound before the model loads, and accepts connections only once the server is ready."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fllm import ConfigError
from fllm_api.cli.bind import allow_address_reuse, bind, bind_unix, bound_address, is_reachable, server_url


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
        assert server_url("localhost", sockets, "https") == f"https://localhost:{port}"
        assert bound_address(sockets) == f"--port {port}"


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


def test_a_unix_socket_exists_while_it_is_bound(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with bind_unix(path) as sockets:
        assert server_url("localhost", sockets) == f"unix:{path}"
        sockets[0].listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_unix_socket_of_an_ended_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as ended:
        ended.bind(str(path))
    with bind_unix(path) as [bound]:
        bound.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert client.getpeername() == str(path)


def test_a_unix_socket_is_in_use_while_another_server_loads(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with bind_unix(path):
        with pytest.raises(ConfigError, match="is in use by another server"), bind_unix(path):
            pass
        assert path.is_socket()


def test_a_file_with_the_name_of_the_lock_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "server.sock.lock").write_text("precious")
    with bind_unix(tmp_path / "server.sock"):
        assert (tmp_path / "server.sock.lock").read_text() == "precious"


def test_a_unix_socket_of_another_program_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigError, match=r"--uds .* is in use"), bind_unix(path):
            pass
    assert path.is_socket()


@pytest.mark.parametrize(
    ("name", "says"),
    [("file", "is not a socket"), ("missing/server.sock", "No such file"), ("x" * 120, "too long")],
)
def test_a_path_that_cannot_be_bound_is_an_error(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ConfigError, match=f"--uds .*{says}"), bind_unix(tmp_path / name):
        pass
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize(
    ("host", "reachable"), [("localhost", False), ("127.0.0.1", False), ("0.0.0.0", True)]
)
def test_addresses_of_this_machine_are_not_reachable_from_others(host: str, reachable: bool) -> None:
    with bound(host, 0) as sockets:
        assert is_reachable(sockets) == reachable


def test_a_unix_socket_is_not_reachable_from_other_machines(tmp_path: Path) -> None:
    with bind_unix(tmp_path / "socket") as sockets:
        assert not is_reachable(sockets)
        assert bound_address(sockets) == f"--uds {tmp_path / 'socket'}"
