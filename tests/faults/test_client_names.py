"""Clients that pretend to be others, in headers and in what is logged."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.fault_server import assert_clean_exit, chat_body, options
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

MANY = 12
LONG = 200
"""Tokens of a request that is still running when the others arrive."""
ONE = ("--limit", "concurrency=1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    with serving(model, *options("inside"), *ONE) as running:
        yield running
        assert_clean_exit(running)


def statuses(server: Server, forwarded: list[str], **transport: str) -> list[int]:
    """Return the statuses of requests that arrive together, each with an ``X-Forwarded-For`` header."""

    def ask(address: str) -> int:
        with httpx.Client(transport=httpx.HTTPTransport(**transport), timeout=60) as client:
            url = "http://a" if transport else server.url
            body = chat_body("hello", tokens=LONG)
            headers = {"x-forwarded-for": address}
            return client.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code

    with ThreadPoolExecutor(len(forwarded)) as pool:
        return sorted(pool.map(ask, forwarded))


@fault(
    "Connections",
    f"{MANY} requests at once, each with another address in X-Forwarded-For, with --limit concurrency=1",
    must="All count for the one address that they come from, as in the access log",
)
def test_forged_addresses(server: Server, seen: Seen) -> None:
    got = statuses(server, [f"10.0.0.{i} [fake] GET /admin 200" for i in range(MANY - 1)] + ["10.9.9.9"])
    assert got == [200] + [429] * (MANY - 1)
    lines = [line for line in server.log().splitlines() if "fllm.access" in line]
    assert len(lines) == MANY
    assert all("]: ip:127.0.0.1 POST /v1/chat/completions " in line for line in lines), lines
    seen(f"one got 200, {MANY - 1} got 429; every line of the log names 127.0.0.1")


@fault(
    "Connections",
    "A client behind a trusted proxy on a unix socket writes its own X-Forwarded-For",
    must="Only what the proxy appended counts: its clients are limited one by one, IPv6 ones by their /64",
)
def test_a_trusted_proxy(model: Path, tmp_path: Path, seen: Seen) -> None:
    path = tmp_path / "server.sock"
    limits = (*ONE, "--uds", path, "--trusted-proxies", "unix,192.0.2.0/24")
    with serving(model, *options("inside"), *limits) as server:
        same = [f"6.6.6.{i}, 198.51.100.1, 192.0.2.{i}" for i in range(4)]
        assert statuses(server, same, uds=str(path)) == [200, 429, 429, 429]
        assert (
            statuses(server, [f"6.6.6.6, 198.51.100.{i}:{i}" for i in range(4)], uds=str(path)) == [200] * 4
        )
        hosts = [f"[2001:db8::{i}]:80" for i in range(3)] + ["2001:db8:0:1::1"]
        assert statuses(server, hosts, uds=str(path)) == [200, 200, 429, 429]
        assert "]: ip:198.51.100.1 POST " in server.log()
        assert "]: ip:2001:db8::/64 POST " in server.log()
        assert_clean_exit(server)
    assert not path.exists()
    seen("four requests of one address: one got 200; of four addresses: all; of three in one /64: one")
