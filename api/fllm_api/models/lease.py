"""What a request holds while it uses a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ModelLease(Generic[T]):
    """Keeps a model loaded until `release`."""

    def __init__(self, loaded: T, on_release: Callable[[], None]) -> None:
        self.loaded = loaded
        self._on_release: Callable[[], None] | None = on_release

    def release(self) -> None:
        """Stop using the model. Calling this again has no effect."""
        on_release, self._on_release = self._on_release, None
        if on_release is not None:
            on_release()
