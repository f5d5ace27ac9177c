"""What rank 0 tells the other ranks, and what they answer, over a socket pair: msgpack after a length."""

from __future__ import annotations

import socket
from typing import TypeVar

from msgspec import Struct, msgpack

from fllm.config import Device
from fllm.logs import LogFormat
from fllm_backends.torch.options import TorchConfig

M = TypeVar("M")
_HEADER_BYTES = 4


class Message(Struct, frozen=True, tag=True, array_like=True):
    """Base class: encoded as an array whose first item is the name of the message."""


class Start(Message, frozen=True):
    """To a rank, once: load its part of the model."""

    config: TorchConfig
    device: Device
    rank: int
    size: int
    file: str
    """The file by which the ranks meet."""
    max_num_seqs: int
    log_level: int
    log_format: LogFormat


class Allocate(Message, frozen=True):
    """To a rank, once: allocate the KV cache."""

    block_size: int


class RowPart(Struct, frozen=True, array_like=True):
    """What a forward pass needs of a `Row`, apart from its tokens."""

    slot: int
    start: int
    count: int
    length: int
    """Number of tokens of the sequence, without drafts."""
    kept: int
    """Number of first blocks that are those of the last row with this slot."""
    blocks: list[int]
    """The other blocks of the row."""


class Forward(Message, frozen=True):
    """To a rank: run the decoder. All ranks get the same hidden states."""

    token_ids: bytes
    """The new tokens of all rows, as native int32."""
    rows: list[RowPart]


class Logits(Message, frozen=True):
    """To a rank: compute its part of the logits of ``count`` hidden states, which rank 0 broadcasts."""

    count: int


class Loaded(Message, frozen=True):
    """From a rank: its part of the model is loaded."""


class Failed(Message, frozen=True):
    """From a rank that exits: why."""

    message: str
    by_user: bool
    """Whether it is a `UserError`, for which the message is enough."""


ToRank = Start | Allocate | Forward | Logits
FromRank = Loaded | Failed


def send(connection: socket.socket, message: Message) -> None:
    """Send a message. Raise `OSError` if the other end is closed."""
    body = msgpack.encode(message)
    connection.sendall(len(body).to_bytes(_HEADER_BYTES, "big") + body)


def receive(connection: socket.socket, decoder: msgpack.Decoder[M]) -> M:
    """Wait for a message. Raise `EOFError` if the other end is closed."""
    size = int.from_bytes(_read(connection, _HEADER_BYTES), "big")
    return decoder.decode(_read(connection, size))


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            raise EOFError("the other end is closed")
        data += more
    return bytes(data)
