"""How a child process is born, and how it died."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress

CHILD = "fllm_backends.process.child"
SLEEPING_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""OpenMP's idle threads spin by default, and take the cores that the API needs."""


async def spawn(channel: asyncio.Protocol) -> Process:
    """Start a child and connect ``channel`` to it; the child ends when the connection does."""
    ours, theirs = socket.socketpair()
    with theirs:
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=ours)
        command = (sys.executable, "-P", "-m", CHILD, str(theirs.fileno()))
        environment = SLEEPING_THREADS | os.environ
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, pass_fds=[theirs.fileno()], env=environment
        )


def kill(process: Process) -> None:
    """Kill it, unless it is dead already."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()


def cause_of_death(process: Process) -> str:
    """``exit status 3``, or ``signal 11``."""
    code = process.returncode
    assert code is not None, "it is dead"
    if code == -signal.SIGKILL:
        return f"signal {-code}, as when memory runs out"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
