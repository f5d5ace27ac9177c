"""A child process for tasks that may never end: it is killed when its time is up.

It compiles and renders what clients send. A hundred bytes of it may take minutes and gigabytes, and a thread
cannot be stopped.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Generic, TypeVar

import msgspec

from fllm.concurrency.cpu_time import add_child_seconds
from fllm.errors import BackendError, RequestError
from fllm.sandbox.limits import ResourceLimits
from fllm.sandbox.message_socket import MessageSocket
from fllm.sandbox.messages import ChildMessage, Crashed, Done, Ready, Rejected

log = logging.getLogger("fllm.sandbox")

ArgumentT = TypeVar("ArgumentT")
TaskT = TypeVar("TaskT")

START_TIMEOUT = 30.0
"""Seconds until a child must be ready."""
OVERHEAD_BYTES = 1024
"""Maximum size of a message in addition to a result, and of an error."""
INHERITED_ENVIRONMENT = ("PATH", "PYTHON", "LD_", "LC_", "LANG", "TZ", "HOME", "VIRTUAL_ENV", "TMPDIR")
"""Prefixes of the environment variables that the child inherits; it gets no secrets."""

_decoder: msgspec.msgpack.Decoder[ChildMessage] = msgspec.msgpack.Decoder(ChildMessage)


class Worker(Generic[ArgumentT, TaskT]):
    """Runs one task at a time in a child process, which starts when needed, and again after it was killed.

    In the child, ``factory(argument())`` returns the function that runs the tasks. The factory, the argument
    and the tasks must be picklable. ``argument`` itself is called in this process.
    """

    def __init__(
        self,
        factory: Callable[[ArgumentT], Callable[[TaskT], bytes]],
        argument: Callable[[], ArgumentT],
        limits: ResourceLimits,
    ) -> None:
        self._factory = factory
        self._argument = argument
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: MessageSocket

    @property
    def is_running(self) -> bool:
        """Whether there is a child."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the child unless it runs, so that the first task does not wait for it.

        Raise `BackendError` if it does not start.
        """
        if not self.is_running:
            self._start()

    def run(self, task: TaskT) -> bytes:
        """Return the result of a task.

        Raise `RequestError` if the task rejects its input or exceeds a limit, `BackendError` if it crashes or
        the child does not start.
        """
        self.start()
        deadline = time.monotonic() + self._limits.wall_seconds
        try:
            self._socket.send(pickle.dumps(task), deadline)
            message = self._receive(deadline)
        except TimeoutError:
            self._charge(self._limits.cpu_seconds)
            self.stop()
            raise RequestError(self._limits.too_slow(self._limits.wall_seconds)) from None
        except (EOFError, OSError, msgspec.DecodeError):
            self._charge(self._limits.cpu_seconds)
            raise RequestError(self._cause_of_death()) from None
        if not isinstance(message, Ready):
            self._charge(message.cpu_seconds)
        return self._result(message)

    def stop(self) -> None:
        """Kill the child, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.close()

    def _receive(self, deadline: float) -> ChildMessage:
        return _decoder.decode(self._socket.receive(deadline, self._limits.output + OVERHEAD_BYTES))

    def _charge(self, seconds: float) -> None:
        """Count CPU time for the calling thread. What the child reports is within its limits, or a lie."""
        add_child_seconds(min(max(0.0, seconds), self._limits.cpu_seconds))

    def _result(self, message: ChildMessage) -> bytes:
        match message:
            case Done(result=result):
                return result
            case Rejected(message=reason, param=param, code=code, out_of_memory=out_of_memory):
                if out_of_memory:
                    self.stop()
                raise RequestError(reason, param=param, code=code)
            case Crashed(message=reason):
                raise BackendError(reason)
            case Ready():  # valid only at the start
                self.stop()
                raise RequestError(self._limits.too_complex)

    def _cause_of_death(self) -> str:
        assert self._process is not None
        try:
            status = self._process.wait(1)
        except subprocess.TimeoutExpired:
            status = None
        self.stop()
        if status == -signal.SIGPROF:
            return self._limits.too_slow(self._limits.cpu_seconds)
        return self._limits.too_large

    def _start(self) -> None:
        self.stop()
        parent_end, child_end = socket.socketpair()
        with child_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fllm.sandbox.child", str(child_end.fileno())],
                pass_fds=[child_end.fileno()],
                env={
                    name: value
                    for name, value in os.environ.items()
                    if name.startswith(INHERITED_ENVIRONMENT)
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # only warnings of libraries: errors arrive as messages
            )
        self._socket = MessageSocket(parent_end)
        deadline = time.monotonic() + START_TIMEOUT
        try:
            setup = (self._factory, self._argument(), self._limits)
            self._socket.send(pickle.dumps(setup), deadline)
            ready = self._receive(deadline)
        except (EOFError, OSError, msgspec.DecodeError):
            ready = None
        if not isinstance(ready, Ready):
            self.stop()
            raise BackendError(
                f"the process for {self._limits.activity} {self._limits.subject} does not start"
            )
        if ready.unlimited:
            _warn(", ".join(ready.unlimited))


@cache
def _warn(unlimited: str) -> None:
    """Log once per process what child processes are not limited in."""
    log.warning("this system does not limit the processes for grammars, templates and images: %s", unlimited)
