"""A test run that is killed leaves no server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fllm.engine_host.parent_death import ending_with
from fllm.testing import ECHO_PLUGIN, echo_model

STARTS_A_SERVER = """
import sys, time
from fllm.testing import serving
with serving(*sys.argv[1:]) as server:
    print(server.process.pid, flush=True)
    time.sleep(60)
"""


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel's parent-death signal is Linux's"
)
def test_a_server_ends_with_the_test_run_that_started_it(tmp_path: Path) -> None:
    arguments = [echo_model(tmp_path), "--plugin", ECHO_PLUGIN, "--backend", "echo"]
    command = [sys.executable, "-c", STARTS_A_SERVER, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        server = int(run.stdout.readline())
        assert exists(server)
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while exists(server):
        assert time.monotonic() < deadline, "the server outlived the test run"
        time.sleep(0.02)


def test_the_program_keeps_its_arguments_environment_and_exit_status() -> None:
    code = "import os, sys; print(sys.argv[1:], os.environ['LETTER']); sys.exit(3)"
    done = subprocess.run(
        ending_with(os.getpid(), [sys.executable, "-c", code, "a b", ""]),
        env={**os.environ, "LETTER": "x"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("['a b', ''] x\n", "", 3)


def test_without_its_parent_a_program_does_not_start() -> None:
    command = ending_with(os.getppid(), [sys.executable, "-c", "print('started')"])
    assert subprocess.run(command, capture_output=True, text=True).stdout == ""
