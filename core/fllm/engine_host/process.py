"""Start the process of an engine on this machine, kill it, and describe how it ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress

from fllm.placement import EngineLaunch


class LocalProcess:
    """A process of an engine on this machine: a `PlacedEngine`."""

    def __init__(self, process: Process) -> None:
        self.node = socket.gethostname()
        self._process = process

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def wait(self) -> str:
        """Wait until it has ended; return how."""
        return describe_exit(await self._process.wait())

    def kill(self) -> None:
        """Kill it if it has not ended."""
        if self.running:
            with suppress(ProcessLookupError):
                self._process.kill()


async def start_process(launch: EngineLaunch) -> LocalProcess:
    """Start the process of an engine on this machine, as a child of this process.

    It ends when this process ends, even by SIGKILL: its socket or its standard input is closed then.
    """
    descriptors = () if launch.descriptor is None else (launch.descriptor,)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *launch.arguments,
        stdin=PIPE if launch.stdin else DEVNULL,
        pass_fds=descriptors,
        env={**launch.environment, **os.environ},
    )
    if launch.stdin:
        assert process.stdin is not None, "it is a pipe"
        process.stdin.write(launch.stdin)
    return LocalProcess(process)


def describe_exit(code: int) -> str:
    """Return how a process ended: ``exit status 3`` or ``signal 11``. ``code`` is negative for a signal."""
    if code == -signal.SIGKILL:
        return f"signal {-code}, as when memory runs out"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
