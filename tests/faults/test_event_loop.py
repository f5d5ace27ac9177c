"""Plugin code that raises or hangs on the server's event loop."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.fault_server import (
    PLUGIN,
    ask,
    assert_clean_exit,
    assert_healthy,
    options,
    status,
    stream,
    wait_until,
)
from support.fault_table import Seen, fault
from support.http_server import Server, run, serving

from fllm.testing.echo import echo_model

ONE_REQUEST_FAILS = "Only its request fails"
INTERRUPTED = "It is interrupted after 5 s; only its request fails"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a tokenizer."""
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def unhealthy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a path; while the file exists, the backend's status raises."""
    return tmp_path_factory.mktemp("unhealthy") / "file"


@pytest.fixture(scope="module")
def server(model: Path, unhealthy_file: Path) -> Iterator[Server]:
    """Run one server for all these faults; it must be healthy again after each."""
    backend = ("--backend-option", f"unhealthy_file={unhealthy_file}", "--enable-metrics")
    with serving(model, *options("inside"), *backend, FAULTY_COLLECTOR="1") as running:
        yield running
        assert_clean_exit(running)


def count_lines(server: Server, pattern: str) -> int:
    """Return the number of log lines that match."""
    return len(re.findall(pattern, server.log()))


@pytest.mark.parametrize(
    ("word", "whole"),
    [
        pytest.param(word, whole, id=word, marks=fault("Plugins", what, must=must))
        for word, whole, what, must in [
            ("PARSER IS NOT MADE", True, "A parser raises in its constructor", ONE_REQUEST_FAILS),
            ("PARSER RAISES", False, "A parser raises in `feed`, for a streamed response", ONE_REQUEST_FAILS),
            ("PARSER RAISES", True, "A parser raises in `feed`, for a whole response", ONE_REQUEST_FAILS),
            ("PARSER FAILS LATE", False, "A parser raises in `finish`", ONE_REQUEST_FAILS),
            ("PARSER HANGS", False, "A parser hangs in an endless loop", INTERRUPTED),
            ("PARSER BACKTRACKS", True, "A parser's regular expression backtracks endlessly", INTERRUPTED),
            ("BACKEND RAISES", False, "A backend in the server process raises", ONE_REQUEST_FAILS),
            ("BACKEND HANGS", False, "A backend in the server process blocks it", INTERRUPTED),
        ]
    ],
)
def test_plugin_code_fails(word: str, whole: bool, server: Server, seen: Seen) -> None:
    with stream(server, "one", tokens=100) as other:
        began = time.monotonic()
        if whole:
            response = ask(server, word, tokens=16)
            assert response.status_code == 500
            message = response.json()["error"]["message"]
        else:
            with stream(server, word, tokens=16) as broken:
                message = broken.end()
        took = time.monotonic() - began
        assert other.end() == ""
    assert message == "the server failed to process the request; see its log"
    assert_healthy(server)
    seen(f"{'500' if whole else 'error event'} after {took:.1f} s; another stream was not affected")


@fault("Plugins", "A backend's `status` raises", must="/health and /ready return 503 as long as it does")
def test_a_status_that_raises(server: Server, unhealthy_file: Path, seen: Seen) -> None:
    unhealthy_file.touch()
    assert (status(server), status(server, "/ready")) == (503, 503)
    assert ask(server, "hello").status_code == 200
    unhealthy_file.unlink()
    assert_healthy(server)
    seen("503, then 200 again")


@fault("Plugins", "A collector raises", must="No request is affected; one line in the log")
def test_a_collector_that_raises(server: Server, seen: Seen) -> None:
    assert_healthy(server)
    assert_healthy(server)
    assert count_lines(server, r"FaultyCollector\.on_request_start .*failed; this is logged once") == 1
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    seen("requests were served; the error was logged once")


@fault("Plugins", "A collector hangs", must="It is interrupted after 5 s and disabled")
def test_a_collector_that_hangs(server: Server, seen: Seen) -> None:
    began = time.monotonic()
    assert ask(server, "hello", tokens=13).status_code == 200
    assert_healthy(server)
    took = time.monotonic() - began
    for _ in range(3):
        assert ask(server, "hello", tokens=13).status_code == 200
    assert_healthy(server)
    assert (
        count_lines(server, r"FaultyCollector\.on_request_end .*blocked the event loop; it is disabled") == 1
    )
    seen(f"its request was served; the server resumed after {took:.1f} s; later requests were not delayed")


@fault("Plugins", "A backend raises when it starts", must="The command exits with a status other than 0")
def test_a_backend_that_raises_at_its_start(model: Path, seen: Seen) -> None:
    done = run("serve", str(model), *options("inside"), "--backend-option", "start=raise", "--port", "0")
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode not in (0, None)
    assert "nothing to divide by" in last
    seen(f"status {done.returncode}, “{last}”")


@fault(
    "Plugins",
    "Code blocks the server's event loop and cannot be interrupted",
    must="The process prints one line and the stack, and exits with status 70 so that it is restarted",
)
def test_a_hang_that_cannot_be_interrupted(model: Path, seen: Seen) -> None:
    with serving(model, *options("inside")) as server:
        began = time.monotonic()
        with pytest.raises(httpx.RemoteProtocolError), stream(server, "BACKEND WON'T STOP") as broken:
            broken.end()
        took = time.monotonic() - began
        assert server.process.wait(10) == 70
        wait_until(lambda: "swallow" in server.log(), "the stack is printed")
        [line] = [line for line in server.lines if "can't be interrupted" in line]
    seen(f"status 70 after {took:.0f} s: “{line.strip()}”")


@fault(
    "Plugins",
    "The server process is stopped (SIGSTOP) for longer than its watchdog's limit",
    must="It continues normally",
)
def test_a_server_that_is_stopped(server: Server, seen: Seen) -> None:
    with stream(server, "one", tokens=100) as running:
        os.kill(server.process.pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(server.process.pid, signal.SIGCONT)
        assert running.end() == ""
    assert_healthy(server)
    seen("after 6 s the stream continued and ended normally")


@fault("Clock", "The clock jumps by a day, and back by two", must="No request is cut off or delayed")
def test_a_clock_that_jumps(model: Path, tmp_path: Path, seen: Seen) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    clock = ("--plugin", str(PLUGIN.with_name("jumping_clock_plugin.py")))
    limits = ("--engine-timeout", "2", "--request-timeout", "60")
    with serving(model, *options(), *clock, *limits, CLOCK_OFFSET=str(offset)) as server:
        created = ask(server, "hello").json()["created"]
        with stream(server, "one", tokens=150) as running:
            for seconds in (86_400, -86_400):
                offset.write_text(str(seconds))
                assert_healthy(server)
            assert running.end() == ""
        moved = ask(server, "hello").json()["created"] - created
        assert moved < -80_000, "the jumping clock is not in effect in the server"
        assert_healthy(server)
        assert_clean_exit(server)
    seen("a stream continued over both jumps, other requests were served; `created` showed the new time")
