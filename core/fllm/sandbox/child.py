"""The child process of a worker: ``python -m fllm.sandbox.child FD`` serves the socket FD."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
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


def serve(parent: MessageSocket) -> None:
    """Process tasks until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(START_NICENESS)
    factory, argument, limits = pickle.loads(parent.receive())  # noqa: S301  from our parent
    function = factory(argument)
    confine(limits)
    os.nice(NICENESS - START_NICENESS)
    parent.send(msgspec.msgpack.encode(Ready()))
    while True:
        try:
            task = parent.receive()
        except EOFError:
            return
        # The kernel ends this process when its CPU time is up, whatever library runs, even without a parent.
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        start = time.process_time()
        message = _run(function, task, limits)
        encoded = msgspec.msgpack.encode(replace(message, cpu_seconds=time.process_time() - start))
        signal.setitimer(signal.ITIMER_PROF, 0)
        parent.send(encoded)


def confine(limits: ResourceLimits) -> None:
    """Limit the memory of this process, and prevent it from writing files."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    max_bytes = pages * resource.getpagesize() + limits.memory
    _, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    if hard_limit != resource.RLIM_INFINITY:
        max_bytes = min(max_bytes, hard_limit)  # only root can raise it
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if not limits.allow_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


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
