"""The started parts that the application is put together from."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec import Struct, field

from fllm.chat import ChatTemplate, RequestTemplates
from fllm.interfaces import Backend, Collector, LoadedParser, LoadedToolParser, MetricsExporter
from fllm.pipeline.pipeline import Pipeline
from fllm.plugins.loader import Plugins
from fllm.tokenizer import Tokenizer
from fllm.values import ModelCard
from fllm_api.config import ServerConfig
from fllm_api.lifecycle.drain import Drain
from fllm_api.limits.round_robin_lock import Turns


class AppState(Struct, frozen=True, kw_only=True):
    """Everything that answers a request; made once the backend has started."""

    config: ServerConfig
    plugins: Plugins
    backend: Backend
    backend_name: str
    card: ModelCard
    tokenizer: Tokenizer
    template: ChatTemplate | None
    """``None``: chat answers 400 and says what to do."""
    request_templates: RequestTemplates | None = None
    """Renders templates of requests, where those are trusted to bring some; one at a time, by turns."""
    turns: Turns = field(default_factory=Turns)
    reasoning: LoadedParser | None = None
    """Makes the reasoning parser of ``--reasoning-parser``."""
    tools: LoadedToolParser | None = None
    """Makes the tool-call parser of ``--tool-call-parser``."""
    collectors: Sequence[Collector] = ()
    drain: Drain = field(default_factory=Drain)
    created: int = field(default_factory=lambda: int(time.time()))
    """Unix time, for `/v1/models`."""

    @property
    def pipeline(self) -> Pipeline:
        """The one path from a request to events."""
        return Pipeline(self.backend, self.tokenizer, self.card.eos_token_ids)

    @property
    def exposer(self) -> MetricsExporter | None:
        """The first collector that can be scraped."""
        return next(
            (collector for collector in self.collectors if isinstance(collector, MetricsExporter)), None
        )
