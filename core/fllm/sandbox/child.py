"""The child process of a worker: ``python -m fllm.sandbox.child FD`` serves the socket FD."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec.structs import replace

from fllm.errors import RequestError, format_error
from fllm.sandbox.limits import ResourceLimits
from fllm.sandbox.message_socket import MessageSocket
from fllm.sandbox.messages import Crashed, Done, Ready, Rejected

START_NICENESS = 5
"""Lower priority than that of the engine's threads."""
NICENESS = 10
"""Still lower: tasks leave nine tenths of a core to the engine if it needs all cores."""
ASSUMED_MEMORY = 512 << 20
"""Address space in bytes of a child that is ready, if there is no ``/proc``; 40 to 180 MB were measured."""


def serve(parent: MessageSocket) -> None:
    """Process tasks until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _lower_priority(START_NICENESS)
    factory, argument, limits = pickle.loads(parent.receive())  # noqa: S301  from our parent
    function = factory(argument)
    unlimited = tuple(confine(limits))
    _lower_priority(NICENESS - START_NICENESS)
    parent.send(msgspec.msgpack.encode(Ready(unlimited)))
    while True:
        try:
            task = parent.receive()
        except EOFError:
            return
        # The kernel ends this process when its CPU time is up, whatever library runs, even without a parent.
        _limit_cpu_time(limits.cpu_seconds)
        start = time.process_time()
        message = _run(function, task, limits)
        encoded = msgspec.msgpack.encode(replace(message, cpu_seconds=time.process_time() - start))
        _limit_cpu_time(0)
        parent.send(encoded)


def confine(limits: ResourceLimits) -> list[str]:
    """Limit the memory of this process, and prevent it from writing files. Return what can't be limited.

    The parent ends a task that takes too long, whatever system this is.
    """
    limited = {
        "CPU time": _limit_cpu_time(0),
        # Other systems ignore the limit, or count gigabytes of shared libraries.
        "memory": sys.platform == "linux" and _limit("RLIMIT_AS", _address_space() + limits.memory),
        "writing files": _limit("RLIMIT_FSIZE", 0),
        "opening files": limits.allow_files or _limit("RLIMIT_NOFILE", 0),
    }
    return [name for name, is_limited in limited.items() if not is_limited]


def _address_space() -> int:
    """Return the bytes that this process has mapped; an assumption if they can't be read."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return ASSUMED_MEMORY


def _limit(name: str, value: int) -> bool:
    """Set a resource limit, at most to the hard limit, which only root raises; return whether it is set."""
    try:
        import resource  # not on every system

        number = getattr(resource, name)
        _, hard_limit = resource.getrlimit(number)
        if hard_limit != resource.RLIM_INFINITY:
            value = min(value, hard_limit)
        resource.setrlimit(number, (value, value))
    except (ImportError, AttributeError, OSError, ValueError):
        return False
    return True


def _limit_cpu_time(seconds: float) -> bool:
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
    except (AttributeError, OSError):
        return False
    return True


def _lower_priority(niceness: int) -> None:
    with suppress(AttributeError, OSError):  # not on every system, or forbidden
        os.nice(niceness)


def _run(function: Callable[[Any], bytes], task: bytes, limits: ResourceLimits) -> Done | Rejected | Crashed:
    try:
        result = function(pickle.loads(task))  # noqa: S301  from our parent
    except RequestError as error:
        return Rejected(error.message, error.param, code=error.code)
    except RecursionError:
        return Rejected(limits.too_complex)
    except MemoryError:
        return Rejected(limits.too_large, out_of_memory=True)
    except Exception as error:  # noqa: BLE001  the parent raises it
        return Crashed(format_error(error))
    if len(result) > limits.output:
        return Rejected(f"{limits.too_complex}: {limits.activity} it produces {len(result)} bytes")
    return Done(result)


if __name__ == "__main__":
    serve(MessageSocket(socket.socket(fileno=int(sys.argv[1]))))
