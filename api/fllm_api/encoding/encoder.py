"""Protocol of the response encoders, the header of a response, and new ids."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Protocol, TypeVar

from msgspec import Struct, field

from fllm.concurrency.turn_executor import Pieces
from fllm.pipeline.output_processor import SequenceOutput

Chunk = TypeVar("Chunk")


class Encoder(Protocol[Chunk]):
    """Encodes the outputs of one request as stream chunks, and merges chunks into the full response."""

    @property
    def needs_tokens(self) -> bool:
        """Whether `feed` needs all tokens of an output, and not only those with log-probabilities."""
        ...

    def logprob_tokens(self, output: SequenceOutput) -> int:
        """Return the number of tokens whose log-probabilities `feed` would put into chunks."""
        ...

    def convert_logprobs(self, output: SequenceOutput) -> Pieces[None]:
        """Encode the log-probabilities of an output in pieces, so that `feed` takes little time after it."""
        ...

    def feed(self, output: SequenceOutput) -> list[Chunk]:
        """Return the chunks for an output. The list may be empty."""
        ...

    def finish(self) -> list[Chunk]:
        """Return the chunk that follows all choices, if the stream options request one."""
        ...

    def fold(self, chunks: Sequence[Chunk]) -> Struct:
        """Merge the chunks into the full response, as a client does with a stream."""
        ...


class ResponseHeader(Struct, frozen=True):
    """Fields that all chunks of a response have in common."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))


def new_id(prefix: str) -> str:
    """Return a unique id that starts with ``prefix``."""
    return f"{prefix}{uuid.uuid4().hex}"
