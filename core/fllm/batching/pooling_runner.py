"""The interface of a device that pools: it loads a model and turns batches of tokens into vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from fllm.values import ModelCard, PoolingInput, Progress


class PoolingRow(Struct, frozen=True):
    """One input of a batch, with the settings of its request."""

    input: PoolingInput
    dimensions: int | None = None
    activation: bool | None = None


class PoolingRunner(Protocol):
    """Runs one model that pools. All methods are called in one thread."""

    def load(self, progress: Callable[[Progress], None]) -> ModelCard:
        """Load the model and return its card, with `ModelCard.pooling`. Raise `UserError`."""
        ...

    def pool(self, rows: Sequence[PoolingRow]) -> Sequence[bytes]:
        """Return the vector of each row as float32 in little-endian order."""
        ...

    def close(self) -> None:
        """Release the model."""
        ...
