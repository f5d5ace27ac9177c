"""What an engine needs in order to connect to its server. It arrives on the standard input of its process."""

from __future__ import annotations

from typing import BinaryIO

import msgspec
from msgspec import Struct, msgpack

from fllm.errors import ConfigError

HEADER_BYTES = 4
MAX_BYTES = 4096


class Ticket(Struct, frozen=True, kw_only=True):
    """Where the server is, and the secrets by which both know each other."""

    host: str
    port: int
    id: str
    """`EngineLaunch.id`."""
    secret: bytes
    """Known to the server and to this engine only. It is valid for one connection."""
    fingerprint: bytes | None = None
    """SHA-256 of the server's certificate; ``None``: the server does not use TLS."""

    def __repr__(self) -> str:
        """Leave out the secret, which does not belong into logs."""
        return f"Ticket({self.id!r}, {self.host}:{self.port})"

    def encode(self) -> bytes:
        """Return the ticket as the process reads it."""
        body = msgpack.encode(self)
        return len(body).to_bytes(HEADER_BYTES, "big") + body


def read_ticket(stream: BinaryIO) -> Ticket:
    """Read a ticket, and nothing after it; raise `ConfigError` if there is none."""
    try:
        size = int.from_bytes(stream.read(HEADER_BYTES), "big")
        return msgpack.decode(stream.read(min(size, MAX_BYTES)), type=Ticket)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError(f"the standard input has no ticket of a server for engines: {error}") from error
