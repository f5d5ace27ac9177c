"""A child process for work that may never end: it is killed when its time is up.

What clients send is compiled or rendered here. A hundred bytes of it may take minutes and gigabytes, and no
thread can be stopped.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from fllm.errors import BackendError, RequestError
from fllm.sandbox.channel import Channel
from fllm.sandbox.limits import ResourceLimits
from fllm.sandbox.messages import Answer, Done, Failed, Ready, Refused

A = TypeVar("A")
Q = TypeVar("Q")

START_SECONDS = 30.0
FRAME = 1024
"""Bytes around a result, or of an error."""
INHERITED = ("PATH", "PYTHON", "LD_", "LC_", "LANG", "TZ", "HOME", "VIRTUAL_ENV", "TMPDIR")
"""How the names begin of what it has of our environment: it needs none of our secrets."""

_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class Worker(Generic[A, Q]):
    """Does one piece of work at a time; started when it is first needed, and again after it was killed.

    ``make`` and ``argument`` must be picklable: in the child, ``make(argument)`` gives what does the work.
    """

    def __init__(
        self, make: Callable[[A], Callable[[Q], bytes]], argument: Callable[[], A], limits: ResourceLimits
    ) -> None:
        self._make = make
        self._argument = argument
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel

    def do(self, work: Q) -> bytes:
        """The result; raises `RequestError` where the child does, or is too slow."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        deadline = time.monotonic() + self._limits.wall_seconds
        try:
            self._channel.send(pickle.dumps(work), deadline)
            answer = self._answer(deadline)
        except TimeoutError:
            self.stop()
            raise RequestError(self._limits.too_slow(self._limits.wall_seconds)) from None
        except (EOFError, OSError, msgspec.DecodeError):
            raise RequestError(self._cause_of_death()) from None
        return self._result(answer)

    def stop(self) -> None:
        """Kill it, if it lives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._channel.close()

    def _answer(self, deadline: float) -> Answer:
        return _decoder.decode(self._channel.receive(deadline, self._limits.output + FRAME))

    def _result(self, answer: Answer) -> bytes:
        match answer:
            case Done(result=result):
                return result
            case Refused(message=message, param=param, spent=spent):
                if spent:
                    self.stop()
                raise RequestError(message, param=param)
            case Failed(message=message):
                raise BackendError(message)
            case Ready():  # which is told of once, at the start
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
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fllm.sandbox.child", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={name: value for name, value in os.environ.items() if name.startswith(INHERITED)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # warnings of the libraries, which answers tell better
            )
        self._channel = Channel(ours)
        deadline = time.monotonic() + START_SECONDS
        try:
            task = (self._make, self._argument(), self._limits)
            self._channel.send(pickle.dumps(task), deadline)
            ready = isinstance(self._answer(deadline), Ready)
        except (EOFError, OSError, msgspec.DecodeError):
            ready = False
        if not ready:
            self.stop()
            raise BackendError(f"the process for {self._limits.doing} {self._limits.subject} does not start")
