"""What the system withholds at the start: standard streams, open files and memory."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.fault_server import options, wait_until
from support.fault_table import Seen, fault
from support.http_server import command
from support.server_start import START_TIMEOUT, error_line

from fllm.engine_host.parent_death import ending_with
from fllm.testing.echo import echo_model

CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")
"""Closed standard streams, in a shell's words."""
FEW_FILES = (16, 24, 32, 64)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as end:
        return end.connect_ex(str(path)) == 0


def descriptors(pid: int) -> list[str]:
    """Return the standard streams of a process and its children that are closed, or sockets."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = [Path(f"/proc/{pid}/fd/{number}") for number in range(3)]
    odd = [str(file) for file in found if not file.exists() or file.readlink().name.startswith("socket:")]
    return odd + [each for child in children for each in descriptors(int(child))]


@fault(
    "Start",
    "One or all standard streams are closed (`<&- >&- 2>&-`)",
    must="The server serves; no socket and no file takes the descriptor of a closed stream",
)
def test_closed_standard_streams(tmp_path: Path, seen: Seen) -> None:
    model = echo_model(tmp_path / "model")
    for closed in CLOSED:
        assert served_with(closed, model, tmp_path / "server.sock") == 0, closed
    seen(f"in all {len(CLOSED)} cases it served and stopped with status 0")


def served_with(closed: str, model: Path, path: Path) -> int:
    """Serve with closed streams, check the descriptors, stop; return the exit status."""
    serve = [sys.executable, "-m", "fllm_api", "serve", str(model), *options("inside"), "--uds", str(path)]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *serve]
    process = subprocess.Popen(ending_with(os.getpid(), shell), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or listens(path), closed, START_TIMEOUT)
        if process.returncode is None:
            assert descriptors(process.pid) == [], closed
            process.terminate()
        return process.wait(30)
    finally:
        process.kill()
        process.wait()


def start_with(limit: int, value: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Start a server under a limit of the system; it must fail."""
    return subprocess.run(
        command("serve", *arguments, "--port", "0"),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT,
        preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
    )


@fault(
    "Start",
    f"`ulimit -n` of {', '.join(map(str, FEW_FILES))}",
    must="One line names the limit, status 2",
)
def test_few_open_files(seen: Seen) -> None:
    for limit in FEW_FILES:
        line = error_line(start_with(resource.RLIMIT_NOFILE, limit))
        assert line.startswith(f"the limit of {limit} open files is too low: 128 are needed")
    seen(f"status 2: {line}")


@fault("Start", "`ulimit -v` of 60 MB and of 400 MB", must="One line names the limit, status 1")
@pytest.mark.parametrize("megabytes", [60, 400])
def test_little_memory(megabytes: int, seen: Seen) -> None:
    done = start_with(resource.RLIMIT_AS, megabytes * 1_000_000)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("furiosa-llm: error: a limit of the system is too low for this server: ")
    assert done.stderr.count("\n") == 1
    seen(f"{megabytes} MB: {done.stderr.partition('server: ')[2]}")
