"""Clients that pretend to be others, in headers and in what is logged."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from support.fault_server import assert_clean_exit, chat_body, options, wait_until
from support.fault_table import Seen, fault
from support.http_server import Server, run, serving
from support.server_start import error_line

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


def connect(server: Server) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0))
    end.settimeout(30)
    return end


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
    "Clients",
    f"{MANY} requests at once, each with another address in X-Forwarded-For, with --limit concurrency=1",
    must="All count for the one address that they come from, as in the access log",
)
def test_forged_addresses(server: Server, seen: Seen) -> None:
    got = statuses(server, [f"10.0.0.{i} [fake] GET /admin 200" for i in range(MANY - 1)] + ["10.9.9.9"])
    assert got == [200] + [429] * (MANY - 1)
    wait_until(lambda: server.log().count(" fllm.access ") == MANY, "all are logged")
    lines = [line for line in server.log().splitlines() if "fllm.access" in line]
    assert all("]: ip:127.0.0.1 POST /v1/chat/completions " in line for line in lines), lines
    seen(f"one got 200, {MANY - 1} got 429; every line of the log names 127.0.0.1")


@fault(
    "Clients",
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
        for name in ("ip:198.51.100.1", "ip:2001:db8::/64"):
            wait_until(lambda name=name: f"]: {name} POST " in server.log(), f"{name} is logged")
        assert_clean_exit(server)
    assert not path.exists()
    seen("four requests of one address: one got 200; of four addresses: all; of three in one /64: one")


KEYS = "ann sk-ann-1\nann sk-ann-2\nbob sk-bob\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEYS)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches") / "batches"


@pytest.fixture(scope="module")
def server_with_keys(model: Path, keys: Path, batches: Path) -> Iterator[Server]:
    record = ("--backend-option", f"batches={batches}")
    with serving(model, *options(), *ONE, *record, "--api-key-file", keys) as running:
        yield running
        assert_clean_exit(running)


def request(
    key: str, *, header: str = "Authorization", scheme: str = "Bearer", tokens: int = 20, stream: bool = False
) -> bytes:
    body = json.dumps(chat_body("hello", tokens=tokens, stream=stream)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n{header}: {scheme} {key}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def read_statuses(connection: socket.socket, count: int) -> list[int]:
    """Read ``count`` whole responses; return their statuses."""
    found: list[int] = []
    with connection.makefile("rb") as lines:
        for _ in range(count):
            found.append(int(lines.readline().split()[1]))
            headers = dict(line.lower().split(b": ", 1) for line in iter(lines.readline, b"\r\n"))
            lines.read(int(headers[b"content-length"]))
    return found


@fault(
    "Clients",
    f"The owner of two keys sends {MANY} requests at once, with --limit concurrency=1, and some pipelined",
    must="They share one limit, however the header is spelled; another owner is served",
)
def test_two_keys_of_one_owner(server_with_keys: Server, seen: Seen) -> None:
    with ExitStack() as stack:
        ends = [stack.enter_context(connect(server_with_keys)) for _ in range(MANY + 1)]
        for i, end in enumerate(ends[:MANY]):
            header = ("Authorization", "AUTHORIZATION", "aUTHORIZATION")[i % 3]
            end.sendall(
                request(f"sk-ann-{1 + i % 2}", header=header, scheme=("Bearer", "bEARER")[i % 2], tokens=100)
            )
        ends[MANY].sendall(request("sk-bob"))
        assert read_statuses(ends[MANY], 1) == [200]
        assert sorted(status for end in ends[:MANY] for status in read_statuses(end, 1)) == [200] + [429] * (
            MANY - 1
        )
        ends[0].sendall(request("sk-ann-1", tokens=10) * 5)
        assert read_statuses(ends[0], 5) == [200] * 5
    wait_until(lambda: server_with_keys.log().count("]: owner:ann POST ") == MANY + 5, "all are logged")
    log = server_with_keys.log()
    assert "]: owner:bob POST " in log
    assert "sk-" not in log
    seen(f"one got 200 and {MANY - 1} got 429; five pipelined ones and the other owner got 200")


@fault(
    "Clients",
    "A client sends 8 requests on one connection, whole and streamed ones, with --limit concurrency=1",
    must="None is rejected: the slot of a request is free when its response has been sent",
)
def test_one_request_after_the_other(server_with_keys: Server, seen: Seen) -> None:
    pipelined = [request("sk-bob", tokens=2, stream=i % 2 == 0) for i in range(8)]
    pipelined[-1] = pipelined[-1].replace(b"Host: a", b"Host: a\r\nConnection: close")
    with connect(server_with_keys) as end, end.makefile("rb") as responses:
        end.sendall(b"".join(pipelined))
        statuses = re.findall(rb"HTTP/1.1 (\d+) ", responses.read())
    assert statuses == [b"200"] * 8
    seen("all got 200")


@fault(
    "Start",
    "A no-break space follows a key in --api-key-file, as after copying it from a page",
    must="One line with the number of the line and without the key, status 2",
)
def test_a_key_with_an_invisible_character(tmp_path: Path, seen: Seen) -> None:
    file = tmp_path / "keys"
    file.write_text("sk-one\nann sk-two\u00a0\n")
    line = error_line(run("serve", "--api-key-file", str(file)))
    assert "line 2: the key has a character that is not visible ASCII" in line
    assert "sk-" not in line
    seen(f"status 2: {line.replace(str(file), 'FILE')}")


@fault(
    "Clients",
    "A client leaves each request as soon as it runs, and sends the next one, with --limit concurrency=1",
    must="What it has left does not run on: the engine never works on more than two of its sequences",
)
def test_a_client_that_leaves(server_with_keys: Server, batches: Path, seen: Seen) -> None:
    before = len(batches.read_text().splitlines()) if batches.exists() else 0
    for i in range(60):
        with connect(server_with_keys) as end:
            end.sendall(request("sk-ann-1", tokens=3000))
            time.sleep(i % 6 * 0.01)
    sizes = [int(size) for size in batches.read_text().splitlines()[before:]]
    assert sizes
    assert max(sizes) <= 2
    seen(f"{len(sizes)} steps, of at most {max(sizes)} sequences")


FORGED = "x 200 in 0.1 s\r\n12:00:00 INFO fllm.access [a]: ip:9.9.9.9 GET /admin 200\x1b[2J\u2028\x9b2J\u202e"
LINE = re.compile(
    r"\d\d:\d\d:\d\d INFO fllm\.access \[[!-~]+\]: ip:127\.0\.0\.1 (GET|POST) /[!-~]* \d{3} in [\d.]+ s.*"
)


def send_forged(server: Server) -> None:
    """Send requests whose path, headers and body contain what looks like the end of a line or field."""
    path = f"/v1/models/{quote(FORGED)}?{quote(FORGED)}"
    names = (
        "User-Agent",
        "X-Request-Id",
        "X-Forwarded-For",
        "Forwarded",
        "Referer",
        "traceparent",
        "Authorization",
    )
    value = FORGED.translate(
        {ord(each): None for each in "\r\n\x1b"}
    ).encode()  # a control character is a 400
    headers = b"".join(name.encode() + b": " + value + b"\r\n" for name in names)
    body = json.dumps(
        {"model": FORGED, FORGED: 1, "prompt": FORGED, "max_tokens": 2, "temperature": FORGED}
    ).encode()
    post = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
    post += b"Content-Type: application/json\r\nContent-Length: %d\r\n"
    with connect(server) as end:
        end.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n".encode("latin-1") + headers + b"\r\n")
        end.sendall(post % len(body) + headers + b"\r\n" + body)
        assert read_statuses(end, 2) == [404, 400]


@fault(
    "Clients",
    "Line breaks, escape sequences and spaces in the path, the headers and the body of requests",
    must="No line and no field of any log is forged, as text, as JSON, and with bodies",
)
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_forged_log_lines(log_format: str, model: Path, seen: Seen) -> None:
    logs = ("--log-format", log_format, "--log-level", "debug", "--enable-payload-logging")
    with serving(model, *options("inside"), *logs) as server:
        send_forged(server)
        wait_until(lambda: "POST /v1/completions 400 in" in server.log(), "both are logged")
        lines = server.log().split("\n")[1:-1]
    assert all(line.isprintable() for line in lines), lines
    payloads = [json.loads(line) for line in lines if line.startswith('{"timestamp"')]
    assert [each["req"]["remote_addr"] for each in payloads] == ["127.0.0.1"] * 2
    if log_format == "json":
        accesses = [json.loads(line) for line in lines if '"fllm.access"' in line]
        assert [each["client"] for each in accesses] == ["ip:127.0.0.1"] * 2
    else:
        accesses = [line for line in lines if line[8:].startswith(" INFO fllm.access ")]
        assert all(LINE.fullmatch(line) for line in accesses), accesses
    assert len(accesses) == 2
    seen(f"{log_format}: one line for each request, with its own address and path")
