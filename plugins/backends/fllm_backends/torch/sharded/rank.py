"""The process of a rank other than 0: ``python -m fllm_backends.torch.sharded.rank FD PARENT``."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from msgspec import msgpack
from setproctitle import setproctitle

from fllm.errors import UserError, format_error
from fllm.logs import configure
from fllm_backends.torch.sharded.messages import (
    Allocate,
    Failed,
    Forward,
    Loaded,
    Logits,
    Start,
    ToRank,
    receive,
    send,
)

_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>

log = logging.getLogger("fllm.engine")


def main(descriptor: int, parent: int) -> None:
    """Serve rank 0 until it exits."""
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A terminal or service manager signals the whole group, but rank 0 decides when to end.
        signal.signal(number, lambda *_: None)
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)
    threading.Thread(target=_exit_with_parent, args=(descriptor,), name="orphan", daemon=True).start()
    decoder = msgpack.Decoder(ToRank)
    try:
        start = receive(connection, decoder)
    except EOFError:
        return
    assert isinstance(start, Start), "it is the first message"
    setproctitle(f"furiosa-llm rank {start.rank}")
    configure(start.log_level, start.log_format)
    try:
        _serve(connection, decoder, start)
    except EOFError:
        return
    except Exception as error:
        if not isinstance(error, UserError):
            log.exception("rank %d of %d failed", start.rank, start.size)
        with suppress(OSError):
            send(connection, Failed(format_error(error), isinstance(error, UserError)))
        sys.exit(1)


def _serve(connection: socket.socket, decoder: msgpack.Decoder[ToRank], start: Start) -> None:
    """Load, allocate, and run what rank 0 sends. Raise `EOFError` when it is gone."""
    import torch

    from fllm_backends.torch.hardware import torch_device
    from fllm_backends.torch.runner import TorchRunner
    from fllm_backends.torch.sharded.follower import Follower
    from fllm_backends.torch.sharded.process_group import ProcessGroup

    ranks = ProcessGroup(Path(start.file), start.rank, start.size, torch_device(start.device))
    runner = TorchRunner(start.config, start.device, start.max_num_seqs, ranks)
    runner.load(lambda _: None)
    send(connection, Loaded())
    allocate = receive(connection, decoder)
    assert isinstance(allocate, Allocate), "it follows Start"
    runner.allocate(allocate.block_size)
    follower = Follower(runner.decoder, runner.cache, ranks)
    with torch.inference_mode():
        while True:
            match receive(connection, decoder):
                case Forward() as forward:
                    follower.forward(forward)
                case Logits(count=count):
                    follower.logits(count)
                case other:
                    raise AssertionError(f"{type(other).__name__} is sent once")


def _die_with(parent: int) -> None:
    """Let Linux kill this process when the thread of rank 0 that started it ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _exit_with_parent(descriptor: int) -> None:
    """Exit when rank 0 is gone, even in the middle of a step that waits for it."""
    poll = select.poll()
    poll.register(descriptor, 0)  # only POLLHUP, which is always reported
    poll.poll()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
