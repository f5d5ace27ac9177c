"""A server whose model two processes divide: the same text, and another engine when one of them dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
from support.fault_server import wait_until
from support.http_server import Server, children, serving

BODY = {"model": "m", "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0, "logprobs": 1}


def complete(server: Server) -> object:
    response = httpx.post(f"{server.api}/completions", json=BODY, timeout=120)
    return response.json()["choices"] if response.status_code == 200 else response.status_code


def ranks(server: Server) -> list[int]:
    """Return the processes of rank 1, which threads of the engine have started."""
    [engine] = [pid for pid in children(server) if is_called(pid, "engine")]
    files = Path(f"/proc/{engine}/task").glob("*/children")
    started = [int(pid) for file in files for pid in file.read_text().split()]
    return [pid for pid in started if is_called(pid, "rank 1")]


def is_called(pid: int, name: str) -> bool:
    try:
        return name in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_two_processes_write_what_one_does_and_the_loss_of_one_is_a_restart(server: Server) -> None:
    expected = complete(server)
    with serving("--devices", "cpu", "--max-model-len", "256", "-tp", "2") as divided:
        assert complete(divided) == expected
        [rank] = ranks(divided)
        os.kill(rank, signal.SIGKILL)
        reason = "rank 1 of 2 died (signal 9); it is started again"
        wait_until(lambda: reason in divided.log(), reason)
        wait_until(lambda: complete(divided) == expected, "the text after the restart", 120)
        [other] = ranks(divided)
        assert other != rank
        divided.process.kill()
        wait_until(lambda: not is_called(other, "rank 1"), "the rank ends with the server")
