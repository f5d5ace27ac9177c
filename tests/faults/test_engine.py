"""An engine process that dies, hangs or runs out of memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.fault_server import (
    ask,
    assert_clean_exit,
    assert_healthy,
    assert_unhealthy,
    engine,
    has_exited,
    options,
    status,
    stream,
    wait_for_recovery,
    wait_until,
)
from support.fault_table import Seen, fault
from support.http_server import Server, children, run, serving

from fllm.testing.echo import echo_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a tokenizer."""
    return echo_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the number of engine starts that fail."""
    file = tmp_path_factory.mktemp("deaths") / "deaths"
    file.write_text("0")
    return file


@pytest.fixture(scope="module")
def server(model: Path, deaths: Path) -> Iterator[Server]:
    """Run one server for all these faults; it must be healthy again after each."""
    faults = ("--engine-timeout", "2", "--backend-option", f"deaths={deaths}", "--max-num-seqs", "2")
    with serving(model, *options(), *faults) as running:
        yield running
        assert_clean_exit(running)


@fault(
    "Engine",
    "The engine process is killed mid-stream while other requests wait in its queue",
    must="Every stream and every waiting request ends with an error; the server is healthy again within 10 s",
)
def test_an_engine_that_is_killed(server: Server, seen: Seen) -> None:
    responses: list[httpx.Response] = []
    waiting = [threading.Thread(target=lambda: responses.append(ask(server, "hello"))) for _ in range(4)]
    with stream(server, "one") as first, stream(server, "two") as second:
        for thread in waiting:
            thread.start()
        time.sleep(0.3)
        victim = engine(server)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        messages = {first.end(), second.end()}
        ended = time.monotonic() - began
    for thread in waiting:
        thread.join()
    assert messages == {"the engine process died (signal 9, as when memory runs out)"}
    assert {response.status_code for response in responses} == {503}
    took = wait_for_recovery(server)
    assert has_exited(victim)
    assert "died (signal 9, as when memory runs out); it is started again" in server.log()
    seen(f"error events and four 503 responses after {ended:.1f} s; healthy again {took:.1f} s later")


@fault(
    "Engine",
    "The engine process dies, and dies again during its restart",
    must="It is restarted with growing delays; requests get 503 until it runs",
)
def test_an_engine_that_dies_at_its_restart(server: Server, deaths: Path, seen: Seen) -> None:
    wait_for_recovery(server)
    deaths.write_text("2")
    os.kill(engine(server), signal.SIGKILL)
    wait_until(lambda: status(server) == 503, "unhealthy")
    assert_unhealthy(server)
    took = wait_for_recovery(server)
    assert server.log().count("the engine can't be started again: the engine process died") == 2
    assert deaths.read_text() == "0"
    seen(f"two starts failed, with 503 meanwhile; healthy again after {took:.1f} s")


@fault(
    "Engine",
    "The engine process is stopped (SIGSTOP), or its event loop hangs",
    must="Killed after --engine-timeout (2 s here); its requests end with an error; healthy within 10 s",
)
def test_an_engine_that_is_stopped(server: Server, seen: Seen) -> None:
    wait_for_recovery(server)
    with stream(server, "one") as running:
        victim = engine(server)
        began = time.monotonic()
        os.kill(victim, signal.SIGSTOP)
        message = running.end()
        ended = time.monotonic() - began
    assert message == "the engine process has not responded for 2 s"
    took = wait_for_recovery(server)
    assert has_exited(victim)
    seen(f"error event after {ended:.1f} s; healthy again {took:.1f} s later")


@fault(
    "Engine",
    "A step of the engine never ends",
    must="Killed after --engine-timeout (2 s here); its requests end with an error; healthy within 10 s",
)
def test_a_step_that_hangs(server: Server, seen: Seen) -> None:
    wait_for_recovery(server)
    with stream(server, "one") as other:
        began = time.monotonic()
        response = ask(server, "ENGINE HANGS")
        ended = time.monotonic() - began
        assert other.end() == "the engine hangs: a step has not ended for 2 s"
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    took = wait_for_recovery(server)
    seen(f"503 and error event after {ended:.1f} s; healthy again {took:.1f} s later")


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(
            "OUT OF MEMORY",
            id="memory",
            marks=fault(
                "Engine",
                "A batch runs out of memory (MemoryError, an allocator's error)",
                must="The requests of the batch end with an error; the engine keeps running",
            ),
        ),
        pytest.param(
            "ENGINE RAISES",
            id="error",
            marks=fault(
                "Engine",
                "A batch raises any other error",
                must="The requests of the batch end with an error; the engine keeps running",
            ),
        ),
    ],
)
def test_a_batch_that_fails(word: str, server: Server, seen: Seen) -> None:
    wait_for_recovery(server)
    before = engine(server)
    response = ask(server, word)
    message = response.json()["error"]["message"]
    assert response.status_code == 500
    assert message.startswith("the engine failed on a batch of 1: ")
    assert_healthy(server)
    assert engine(server) == before
    seen(f"500, “{message}”; the same engine served the next request")


@fault(
    "Engine",
    "Every batch fails: the device is broken",
    must="After five failures in a row the engine is restarted",
)
def test_a_device_that_is_broken(server: Server, seen: Seen) -> None:
    wait_for_recovery(server)
    before = engine(server)
    statuses = [ask(server, "ENGINE RAISES").status_code for _ in range(5)]
    wait_until(lambda: has_exited(before), "the broken engine is killed")
    took = wait_for_recovery(server)
    assert set(statuses) <= {500, 503}
    seen(f"{statuses.count(500)} responses with 500; healthy again after {took:.1f} s")


@fault(
    "Engine",
    "The engine process dies while the server starts",
    must="The command prints one line and exits with a status other than 0",
)
def test_an_engine_that_dies_at_the_start(model: Path, tmp_path: Path, seen: Seen) -> None:
    (tmp_path / "deaths").write_text("1")
    faults = ("--backend-option", f"deaths={tmp_path / 'deaths'}", "--port", "0")
    done = run("serve", str(model), *options(), *faults)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "the engine process died" in line]
    seen(f"status {done.returncode}, “{line.strip()}”")


@fault(
    "Engine",
    "The server process is killed (SIGKILL)",
    must="Its engine process exits by itself",
)
def test_an_orphan(model: Path, seen: Seen) -> None:
    with serving(model, *options()) as server, stream(server, "one"):
        orphans = children(server)
        server.process.kill()
        server.process.wait()
        took = wait_until(lambda: all(map(has_exited, orphans)), "the engine has ended")
        seen(f"it exited after {took:.1f} s")


@fault(
    "Engine",
    "Server and engine are suspended for longer than --engine-timeout, then resume",
    must="Nothing is killed; the stream continues",
)
def test_a_pause_of_everything(server: Server, seen: Seen) -> None:
    wait_for_recovery(server)
    with stream(server, "one", tokens=100) as running:
        both = (server.process.pid, engine(server))
        signal_all(both, signal.SIGSTOP)
        time.sleep(4)
        signal_all(both, signal.SIGCONT)
        assert running.end() == ""
    assert engine(server) == both[1]
    assert_healthy(server)
    seen("after 4 s the stream continued and ended normally")


def signal_all(processes: tuple[int, ...], number: signal.Signals) -> None:
    for pid in processes:
        os.kill(pid, number)
