"""The child of a worker: ``python -m fllm.sandbox.child FD`` works for who is at the socket's other end."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from fllm.errors import RequestError, format_error
from fllm.sandbox.channel import Channel
from fllm.sandbox.limits import ResourceLimits
from fllm.sandbox.messages import Answer, Done, Failed, Ready, Refused

NICENESS = 5
"""The engine's threads come first."""


def serve(channel: Channel) -> None:
    """Work until nobody is at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    make, argument, limits = pickle.loads(channel.receive())  # noqa: S301  our parent's
    work = make(argument)
    confine(limits)
    channel.send(msgspec.msgpack.encode(Ready()))
    while True:
        try:
            request = channel.receive()
        except EOFError:
            return
        # Whose time is up is ended by the kernel, in whatever library it is; even if the parent has died.
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_seconds)
        answer = msgspec.msgpack.encode(_done(work, request, limits))
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.send(answer)


def confine(limits: ResourceLimits) -> None:
    """Let this process have no more memory than that, and write no file."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if not limits.files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _done(work: Callable[[Any], bytes], request: bytes, limits: ResourceLimits) -> Answer:
    try:
        result = work(pickle.loads(request))  # noqa: S301  our parent's
    except RequestError as error:
        return Refused(error.message, error.param)
    except RecursionError:
        return Refused(limits.too_complex)
    except MemoryError:
        return Refused(limits.too_large, spent=True)
    except Exception as error:  # noqa: BLE001  it is raised anew in the parent
        return Failed(format_error(error))
    if len(result) > limits.output:
        return Refused(f"{limits.too_complex}: {limits.doing} it gives {len(result)} bytes")
    return Done(result)


if __name__ == "__main__":
    serve(Channel(socket.socket(fileno=int(sys.argv[1]))))
