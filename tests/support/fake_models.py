"""Models without weights, and an account of what their pool does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from fllm.errors import ModelError
from fllm_api.models.model import Model
from fllm_api.models.pool import ModelPool


class FakeLoader:
    """Loads nothing, after some iterations of the event loop, and counts what would be loaded."""

    def __init__(self, name: str, size: int, *, loaded: set[str] | None = None) -> None:
        self.name = name
        self.size = size
        self.present: set[str] = set() if loaded is None else loaded
        """Names of the models that are loaded, of all loaders."""
        self.fails = 0
        """Number of loads that fail from now on."""
        self.loads = 0
        self.unloads = 0
        self.steps = 3
        """Iterations of the event loop that a load takes."""

    async def load(self) -> str:
        self.loads += 1
        assert self.name not in self.present, "a model is loaded once at a time"
        self.present.add(self.name)
        try:
            for _ in range(self.steps):
                await asyncio.sleep(0)
            if self.fails:
                self.fails -= 1
                raise ModelError("no such file")
        except BaseException:
            self.present.discard(self.name)
            raise
        return self.name

    async def unload(self, loaded: str) -> None:
        assert loaded == self.name
        await asyncio.sleep(0)
        self.unloads += 1
        self.present.discard(self.name)

    async def measure(self, loaded: str) -> int:
        assert loaded == self.name
        return self.size


def a_pool(
    sizes: Sequence[int],
    *,
    budget: int | None = None,
    group_size: int = 4,
    max_waiting: int = 1000,
    clock: Callable[[], float] = time.monotonic,
) -> ModelPool[str]:
    """Return a pool of models named a, b, c, ... with these sizes."""
    present: set[str] = set()
    models = [
        Model(name, FakeLoader(name, size, loaded=present), size=size)
        for name, size in zip("abcdefgh", sizes, strict=False)
    ]
    return ModelPool(models, budget=budget, group_size=group_size, max_waiting=max_waiting, clock=clock)


def loader_of(pool: ModelPool[str], name: str) -> FakeLoader:
    """Return the loader of a model."""
    loader = model_of(pool, name).loader
    assert isinstance(loader, FakeLoader)
    return loader


def model_of(pool: ModelPool[str], name: str) -> Model[str]:
    """Return a model by its name."""
    return next(model for model in pool.models if model.name == name)
