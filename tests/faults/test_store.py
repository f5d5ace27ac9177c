"""The file in which responses are stored: full disk, SIGKILL, damage, two servers, a wrong key."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fault_server import assert_healthy, options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, serving
from support.server_start import start_error

from fllm.testing.echo import echo_model
from fllm_dialects.store import Record, StoreSettings, open_database

FILE = "responses.sqlite3"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a tokenizer."""
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of the servers."""
    return tmp_path_factory.mktemp("data")


def arguments(model: Path, data: Path, *more: str) -> tuple[str, ...]:
    return (str(model), *options("inside"), "--data-dir", str(data), *more)


def create(server: Server, text: str = "hello", **body: Any) -> httpx.Response:
    """Create a response of a few tokens."""
    body = {"model": "m", "input": text, "max_output_tokens": 4, **body}
    return httpx.post(f"{server.api}/responses", json=body, timeout=60)


def retrieve(server: Server, response_id: str) -> httpx.Response:
    return httpx.get(f"{server.api}/responses/{response_id}", timeout=60)


def store(server: Server, acknowledged: list[dict[str, Any]]) -> None:
    """Create responses until the server dies; add each that was acknowledged."""
    while True:
        try:
            response = create(server, metadata={"text": "x" * 400})
        except httpx.HTTPError:
            return
        if response.status_code == 200:
            acknowledged.append(response.json())


@pytest.fixture(scope="module")
def killed(model: Path, data: Path) -> tuple[list[dict[str, Any]], str]:
    """Kill two servers that store responses; return those that were acknowledged, and one that ran."""
    acknowledged: list[dict[str, Any]] = []
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        servers = [stack.enter_context(serving(*arguments(model, data))) for _ in range(2)]
        for server in servers * 4:
            pool.submit(store, server, acknowledged)
        wait_until(lambda: len(acknowledged) >= 50, "responses are stored")
        for server in servers:
            assert retrieve(server, acknowledged[0]["id"]).json() == acknowledged[0]
        running = create(servers[0], max_output_tokens=3000, background=True).json()
        for server in servers:
            server.process.send_signal(signal.SIGKILL)
    return acknowledged, running["id"]


@pytest.fixture(scope="module")
def server(model: Path, data: Path, killed: object) -> Iterator[Server]:
    """Yield a server with the directory of those that were killed."""
    with serving(*arguments(model, data)) as server:
        yield server


@fault(
    "Store",
    "Two servers with one data directory are killed (SIGKILL) while eight clients store responses",
    must="Each served what the other stored; after a restart, all that was acknowledged is there",
)
def test_two_servers_are_killed(server: Server, killed: tuple[list[dict[str, Any]], str], seen: Seen) -> None:
    acknowledged, running = killed
    with httpx.Client() as client:
        found = [client.get(f"{server.api}/responses/{each['id']}").json() for each in acknowledged]
    assert found == acknowledged
    assert create(server, previous_response_id=acknowledged[-1]["id"]).status_code == 200
    wait_until(lambda: retrieve(server, running).json()["status"] == "failed", "it has failed")
    seen(f"all {len(acknowledged)} responses were there; the one that ran in the background has failed")


@fault(
    "Store",
    "The disk is full (here: the file cannot grow)",
    must="Requests that store get 507 or an error event; others are served, and all once there is space",
)
def test_full_disk(server: Server, killed: tuple[list[dict[str, Any]], str], data: Path, seen: Seen) -> None:
    pid, stored = server.process.pid, killed[0][0]
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    size = max(file.stat().st_size for file in data.glob(f"{FILE}*"))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
    large = {str(number): 512 * "x" for number in range(16)}
    wait_until(lambda: create(server, metadata=large).status_code != 200, "the disk is full")
    response = create(server, metadata=large)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (507, "server_error")
    streamed = create(server, metadata=large, stream=True).text
    assert "event: error" in streamed
    assert streamed.rindex("event: response.failed") > streamed.rindex("event: error")
    assert create(server, store=False).status_code == 200
    assert retrieve(server, stored["id"]).json() == stored
    assert_healthy(server)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert create(server, metadata=large).status_code == 200
    seen(f"507, “{error['message']}”, and an error event; with space, responses were stored again")


@fault(
    "Store",
    "The file is damaged",
    must="It is renamed, a new one is created, and one line reports it; the server serves",
)
def test_damaged_file(model: Path, tmp_path: Path, seen: Seen) -> None:
    tmp_path.chmod(0o700)
    damaged = b"SQLite format 3\0" + bytes(range(256)) * 400
    (tmp_path / FILE).write_bytes(damaged)
    with serving(*arguments(model, tmp_path)) as server:
        stored = create(server).json()
        assert retrieve(server, stored["id"]).json() == stored
        assert server.log().count("the store is damaged") == 1
    [kept] = tmp_path.glob(f"{FILE}-damaged-*")
    assert kept.read_bytes() == damaged
    seen("it was renamed, one line reported it, and responses were stored in a new one")


@fault(
    "Store",
    "The data directory cannot be written",
    must="The server starts and warns; responses are kept in memory",
)
def test_unwritable_directory(model: Path, tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "file").touch()
    with serving(*arguments(model, tmp_path / "file" / "data")) as server:
        stored = create(server).json()
        assert create(server, previous_response_id=stored["id"]).status_code == 200
        assert "in memory only" in server.log()
    seen("one line warned; responses were stored and continued")


@fault(
    "Store",
    "The key of an encrypted store is another one",
    must="The command prints one line and exits with status 2",
)
def test_wrong_key(model: Path, tmp_path: Path, seen: Seen) -> None:
    tmp_path.chmod(0o700)

    async def fill() -> None:
        database = await open_database(tmp_path / FILE, StoreSettings(key=bytes(32)))
        await database.write(lambda records: records.put(Record("r", "", "response", b"{}")))
        await database.close()

    asyncio.run(fill())
    wrong = start_error(*arguments(model, tmp_path, "--plugin-option", f"responses.store_key={'ab' * 32}"))
    assert "is encrypted with another key" in wrong
    seen(f"“{wrong.replace(str(tmp_path), 'DIR')}”")
