"""A server whose backend pools: the vector of an input follows from its tokens."""

from __future__ import annotations

import asyncio
import itertools
from array import array
from typing import Any

from support.api_fakes import FakeBackend, a_server

import fllm_pooling.plugin
from fllm.plugins.discovery import Candidate
from fllm.plugins.loader import Plugins
from fllm.values import PoolingCard, PoolingInput, PoolingOutput, PoolingRequest
from fllm_api.app_state import AppState

EMBEDS = PoolingCard(task="embed", size=3)
SCORES = PoolingCard(task="classify", size=1, labels=("LABEL_0",))
CLASSIFIES = PoolingCard(task="classify", size=2, labels=("bad", "good"))


class FakePoolingBackend(FakeBackend):
    """Returns the number of tokens, the first and the last one of each input, cut to the size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.requests: list[PoolingRequest] = []
        self.cancelled = 0
        self.stalls = False
        self.repeats = 1
        """How often the values of a vector are repeated."""
        self.failure: Exception | None = None

    async def pool(self, request: PoolingRequest) -> PoolingOutput:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        try:
            await (asyncio.Event().wait() if self.stalls else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        found = [vector(each, request.dimensions or self.size) * self.repeats for each in request.inputs]
        numbers = array("f", itertools.chain(*found))
        return PoolingOutput(size=len(found[0]), values=numbers.tobytes())


def vector(given: PoolingInput, size: int = 3) -> list[float]:
    """Return the fake vector of an input."""
    ids = given.token_ids
    return [float(each) for each in (len(ids), ids[0], ids[-1])[:size]]


def pooling_plugins() -> Plugins:
    """Return the pooling endpoints as the only plugin."""
    plugins = Plugins()
    plugins.load(Candidate("pooling", "furiosa-llm-server", "1", "m", lambda: fllm_pooling.plugin))
    return plugins


def a_pooling_server(pooling: PoolingCard | None = EMBEDS, **parts: Any) -> AppState:
    """Return a server for a model that pools, with one token per byte; ``None``: a model that generates."""
    card = {"pooling": pooling, "max_model_len": 32, **parts.pop("card", {})}
    if pooling is not None:
        parts = {"backend": FakePoolingBackend(pooling.size), **parts}
    return a_server(plugins=pooling_plugins(), card=card, **parts)


def fake_of(server: AppState) -> FakePoolingBackend:
    """Return the server's fake backend."""
    assert isinstance(server.backend, FakePoolingBackend)
    return server.backend
