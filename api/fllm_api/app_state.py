"""The started components that the application is assembled from."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from msgspec import Struct, field

from fllm.chat import ChatTemplate, RequestTemplates
from fllm.concurrency.round_robin_semaphore import RoundRobinSemaphore
from fllm.concurrency.timeout_executor import TimeoutExecutor
from fllm.concurrency.turn_executor import TurnExecutor
from fllm.config import LoraAdapter
from fllm.interfaces import Backend, Collector, LoadedParser, LoadedToolParser, MetricsExporter
from fllm.pipeline.pipeline import Pipeline
from fllm.plugins.loader import Plugins
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard
from fllm_api.adapters import AdapterRegistry
from fllm_api.config import ServerConfig
from fllm_api.lifecycle.drain import RequestDrain
from fllm_api.media.remote_file import MAX_FETCHED_BYTES
from fllm_api.sample_recorder import SampleRecorder

TURN_THREADS = max(1, min((os.cpu_count() or 1) // 2, 4))
"""Threads for large requests and responses. Tokenizing releases the GIL, the rest does not."""


class ParserChoice(Struct, frozen=True):
    """A parser of the server, or none, and who chose it."""

    name: str | None
    selected_by: Literal["auto", "option"]


class ServerState(Struct, frozen=True, kw_only=True):
    """What all models of the server share."""

    config: ServerConfig
    plugins: Plugins
    template_turns: TurnExecutor = field(default_factory=partial(TurnExecutor, 1, "templates"))
    """Prepares requests with a chat template of their own."""
    turns: TurnExecutor = field(default_factory=partial(TurnExecutor, TURN_THREADS, "turns"))
    """Prepares large requests and encodes large responses."""
    image_threads: TimeoutExecutor = field(default_factory=partial(TimeoutExecutor, "images"))
    """Fetches the images that requests refer to."""
    image_memory: RoundRobinSemaphore = field(
        default_factory=partial(RoundRobinSemaphore, MAX_FETCHED_BYTES, dynamic_shares=True)
    )
    """Bytes for the images that are fetched, until they are prepared."""
    cache_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    """Key of the salts that separate clients in the prefix cache."""
    collectors: Sequence[Collector] = ()
    recorder: SampleRecorder | None = None
    """Records what the models write; ``None``: nothing is recorded."""
    drain: RequestDrain = field(default_factory=RequestDrain)
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time in seconds, for `/v1/models`."""

    @property
    def shared_fields(self) -> dict[str, Any]:
        """The components that all models share, by the name of their field."""
        return {name: getattr(self, name) for name in ServerState.__struct_fields__}

    @property
    def metrics_exporter(self) -> MetricsExporter | None:
        """The first collector that exports metrics, for `/metrics`."""
        return next(
            (collector for collector in self.collectors if isinstance(collector, MetricsExporter)), None
        )


class AppState(ServerState, frozen=True, kw_only=True):
    """All components that the requests for one model need; created once its backend has started."""

    backend: Backend
    backend_name: str
    card: ModelCard
    tokenizer: Tokenizer
    template: ChatTemplate | None
    """If ``None``, a chat request is rejected with a 400 that explains what to do."""
    request_templates: RequestTemplates | None = None
    """Renders the chat templates of requests, one at a time; ``None`` if requests may not supply any."""
    reasoning_parser: LoadedParser | None = None
    """Creates the reasoning parser that ``--reasoning-parser`` names."""
    tool_parser: LoadedToolParser | None = None
    """Creates the tool-call parser that ``--tool-call-parser`` names."""
    parser_choices: Mapping[str, ParserChoice] = {}
    """The choices, for `/v1/models`."""
    isolates_clients: bool = False
    """Whether only requests of the same client share the backend's prefix cache."""
    shared_prefixes: Callable[[], Sequence[list[int]]] | None = None
    """Returns the token ids of the prefixes that all clients share nevertheless."""
    adapters: AdapterRegistry = field(default_factory=AdapterRegistry)
    """The LoRA adapters."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that turns a request into events."""
        return Pipeline(self.backend, self.tokenizer, self.card.eos_token_ids)

    def model_name(self, adapter: LoraAdapter | None) -> str:
        """Return the name of the model in responses: that of the adapter, or the first one of the model."""
        return adapter.name if adapter else self.config.served_model_name
