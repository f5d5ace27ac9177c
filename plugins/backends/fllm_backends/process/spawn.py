"""Spawn and kill child processes, and describe how they exited."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress

CHILD_MODULE = "fllm_backends.process.child"
PASSIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""Environment that lets OpenMP's idle threads sleep: by default they spin on cores that the API needs."""


async def spawn(channel: asyncio.Protocol) -> Process:
    """Start a child that ``channel`` is connected to; the child exits when the connection closes."""
    parent_end, child_end = socket.socketpair()
    with child_end:
        await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=parent_end)
        command = (sys.executable, "-P", "-m", CHILD_MODULE, str(child_end.fileno()))
        environment = PASSIVE_THREADS | os.environ
        return await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, pass_fds=[child_end.fileno()], env=environment
        )


def kill(process: Process) -> None:
    """Kill the process if it has not exited."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()


def describe_exit(process: Process) -> str:
    """Return a description such as ``exit status 3`` or ``signal 11``."""
    code = process.returncode
    assert code is not None, "the process has exited"
    if code == -signal.SIGKILL:
        return f"signal {-code}, as when memory runs out"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
