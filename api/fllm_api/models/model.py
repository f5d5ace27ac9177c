"""One model of a server: whether it is loaded, what it occupies, and who uses it."""

from __future__ import annotations

import asyncio
from typing import Generic, Literal, Protocol, TypeVar

T = TypeVar("T")

ModelState = Literal["unloaded", "loading", "loaded", "unloading", "sleeping", "failed"]
"""``sleeping``: unloaded because nobody used it. ``failed``: the last try to load it failed."""

OCCUPYING: frozenset[ModelState] = frozenset(("loading", "loaded", "unloading"))
"""States in which a model occupies memory."""


SETTLING_SECONDS = 60.0
"""Seconds after a load from which on a measured size that is less than the estimate replaces it."""


class ModelLoader(Protocol[T]):
    """Loads a model, any number of times, and unloads it."""

    async def load(self) -> T:
        """Load the model. Any error means that it can't be loaded now."""
        ...

    async def unload(self, loaded: T) -> None:
        """Free everything that `load` made."""
        ...

    async def measure(self, loaded: T) -> int:
        """Return the bytes that the loaded model occupies; 0 if that is not known. Raise nothing."""
        ...


class Model(Generic[T]):
    """A model. Only the `ModelPool` changes it."""

    def __init__(
        self,
        name: str,
        loader: ModelLoader[T],
        *,
        size: int = 0,
        pinned: bool = False,
        idle_timeout: float = 0.0,
    ) -> None:
        self.name = name
        self.loader = loader
        self.estimate = size
        """Bytes that it is expected to occupy."""
        self.measured = 0
        """Bytes that it occupies, as measured last; 0 if that is not known."""
        self._peak = 0
        """Most bytes that were measured: they are expected the next time, too."""
        self._settled = False
        """Whether it was measured long after a load. Before, it may not have touched all of its memory."""
        self.pinned = pinned
        """Whether it stays loaded, whatever else needs the memory."""
        self.idle_timeout = idle_timeout
        """Seconds without a request after which it is unloaded; 0 means never."""
        self.state: ModelState = "unloaded"
        self.loaded: T | None = None
        self.in_flight = 0
        """Requests that use it now."""
        self.draining = False
        """Whether it starts no further requests until it is unloaded."""
        self.overtaken = 0
        """Requests of other models that have started since this one is next to be loaded."""
        self.last_used = 0.0
        self.loads = 0
        """Times that it was loaded."""
        self.loaded_at = 0.0
        self.load_seconds = 0.0
        """Duration of the last load."""
        self.failures = 0
        """Loads that have failed since the last one that did not."""
        self.error = ""
        """Why the last load failed."""
        self.retry_at = 0.0
        """Time before which a failed load is not tried again."""
        self.gone = asyncio.Event()
        """Set while it occupies no memory."""
        self.gone.set()

    @property
    def size(self) -> int:
        """Bytes that count against the memory budget: the most that were measured, or the estimate."""
        return self._peak if self._settled else max(self._peak, self.estimate)

    @property
    def memory(self) -> int:
        """Bytes that it occupies now."""
        return (self.measured or self.size) if self.occupies_memory else 0

    def measure(self, size: int, seconds: float = 0.0) -> None:
        """Record a size that was measured ``seconds`` after the load; 0 if it is not known."""
        self.measured = size
        self._peak = max(self._peak, size)
        self._settled = self._settled or (size > 0 and seconds >= SETTLING_SECONDS)

    @property
    def occupies_memory(self) -> bool:
        """Whether its size counts against the memory budget."""
        return self.state in OCCUPYING

    @property
    def idle(self) -> bool:
        """Whether it is loaded and no request uses it."""
        return self.state == "loaded" and not self.in_flight
