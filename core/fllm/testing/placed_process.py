"""The process that `PlacementContract` places: it connects like an engine and answers questions about itself.

``python -m fllm.testing.placed_process`` reads a ticket; with the number of a socket it is a child.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from base64 import b64encode

from msgspec import msgpack

from fllm.engine_host import Channel, Ticket, dial, read_ticket
from fllm.testing.placement_messages import VERSION, Answer, Question


class _Process:
    def __init__(self, ticket: Ticket | None = None) -> None:
        self.channel: Channel[Question] = Channel(msgpack.Decoder(Question).decode, self._receive)
        secrets = [] if ticket is None else [ticket.secret, ticket.encode()]
        self._encoded = [text for each in secrets for text in (each.hex(), b64encode(each).decode())]

    def _receive(self, question: Question) -> None:
        if question.exit_status is not None:
            os._exit(question.exit_status)
        texts = [*sys.orig_argv, *os.environ.values()]
        visible = any(secret in text for secret in self._encoded for text in texts)
        self.channel.send(Answer(os.getpid(), visible))


async def _run(arguments: list[str]) -> None:
    if arguments:
        process = _Process()
        connection = socket.socket(fileno=int(arguments[0]))
        await asyncio.get_running_loop().create_unix_connection(lambda: process.channel, sock=connection)
    else:
        ticket = read_ticket(sys.stdin.buffer)
        process = _Process(ticket)
        await dial(ticket, process.channel, VERSION)
    await process.channel.closed.wait()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1:]))
