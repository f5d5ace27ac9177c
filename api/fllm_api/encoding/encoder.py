"""What the encoders of both endpoints share."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Protocol, TypeVar

from msgspec import Struct, field

from fllm.pipeline.output_processor import SequenceOutput

Chunk = TypeVar("Chunk")


class Encoder(Protocol[Chunk]):
    """Turns the outputs of one request into the chunks of a stream, and those into the whole answer."""

    def feed(self, output: SequenceOutput) -> list[Chunk]:
        """What the client is to hear of an output; it may be nothing."""
        ...

    def finish(self) -> list[Chunk]:
        """The chunk after all choices have finished, where one was asked for."""
        ...

    def fold(self, chunks: Sequence[Chunk]) -> Struct:
        """The whole answer: what a client makes of the stream."""
        ...


class ResponseHeader(Struct, frozen=True):
    """What all chunks of an answer bear."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))


def new_id(prefix: str) -> str:
    """An id that nothing else bears."""
    return f"{prefix}{uuid.uuid4().hex}"
