"""Start, supervise and end the processes of all ranks but 0."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from msgspec import msgpack

from fllm.errors import BackendError, BackendLost, FllmError, ModelError
from fllm_backends.torch.sharded.messages import Failed, FromRank, Message, receive, send

MODULE = "fllm_backends.torch.sharded.rank"
EXIT_SECONDS = 5.0
"""Time to exit for a process whose connection is closed. After that it is killed."""

log = logging.getLogger("fllm.engine")


class Followers:
    """The other ranks, each a child process that ends with this one."""

    def __init__(self, size: int) -> None:
        """Start the processes of ranks 1 to ``size - 1``. They wait for their first message."""
        self._size = size
        self._closing = False
        self._lost: str | None = None
        self._connections: list[socket.socket] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        for rank in range(1, size):
            self._spawn(rank)

    @property
    def lost(self) -> str | None:
        """Which rank has died, and how; ``None`` if all run."""
        return self._lost

    def send_each(self, messages: Sequence[Message]) -> None:
        """Send one message to each rank. Raise `OSError` if one is gone."""
        for connection, message in zip(self._connections, messages, strict=True):
            send(connection, message)

    def send(self, message: Message) -> None:
        """Send a message to all ranks. Raise `OSError` if one is gone."""
        self.send_each([message] * len(self._connections))

    def wait_until_loaded(self) -> None:
        """Wait for the ranks to load. Raise the error of the first that fails."""
        for rank in range(1, self._size):
            if failure := self._next(rank):
                raise failure

    def failure(self) -> FllmError | None:
        """Return the error of a rank that has ended, after a short wait for one that is about to."""
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_SECONDS / len(self._processes))
        ended = (rank for rank in range(1, self._size) if self._processes[rank - 1].returncode is not None)
        return next((failure for rank in ended if (failure := self._next(rank))), None)

    def error(self, cause: Exception) -> BackendLost:
        """Return the error of an engine of which a rank does not respond."""
        with suppress(subprocess.TimeoutExpired):
            for process in self._processes:
                process.wait(1.0)
        return BackendLost(self._lost or f"the ranks are out of step: {cause}")

    def close(self) -> None:
        """End all processes."""
        self._closing = True
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            try:
                process.wait(EXIT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self, rank: int) -> None:
        own_end, child_end = socket.socketpair()
        self._connections.append(own_end)
        with child_end:
            command = (sys.executable, "-P", "-m", MODULE, str(child_end.fileno()), str(os.getpid()))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[child_end.fileno()])
        self._processes.append(process)
        threading.Thread(target=self._watch, args=(rank, process), name=f"rank {rank}", daemon=True).start()

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        """Record the death of a rank, which a collective operation may never notice."""
        code = process.wait()
        if not self._closing and self._lost is None:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            self._lost = f"rank {rank} of {self._size} died ({how})"

    def _next(self, rank: int) -> FllmError | None:
        """Return the error that a rank reports next; ``None`` if it is loaded."""
        try:
            message = receive(self._connections[rank - 1], msgpack.Decoder(FromRank))
        except (EOFError, OSError) as error:
            return self.error(error)
        if not isinstance(message, Failed):
            return None
        return (ModelError if message.by_user else BackendError)(f"rank {rank}: {message.message}")
