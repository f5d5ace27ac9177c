"""Putting the started parts together; heavy to import, so it is imported while the backend loads."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvicorn

from fllm.chat import ChatTemplate
from fllm.errors import ConfigError
from fllm.interfaces import Backend, ChatTemplates, MetricsContext, TemplateContext
from fllm.plugins import Plugins
from fllm.tokens import Tokenizer
from fllm.values import ModelCard
from fllm_api.app import create_app
from fllm_api.cli.choice import with_chosen_parsers
from fllm_api.cli.settings import Settings
from fllm_api.config import ServerConfig
from fllm_api.server import Server

KEEP_ALIVE = 75
"""Seconds an idle connection lives: longer than in clients' pools, so that no request meets a closing one."""

log = logging.getLogger("fllm.server")


class Listener(uvicorn.Server):
    """uvicorn, without its signal handlers, and telling when it listens."""

    on_ready: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self.on_ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs this server: uvicorn raises them again at its end."""
        yield


def listener_for(settings: Settings, plugins: Plugins, backend: Backend, card: ModelCard) -> Listener:
    """The HTTP server over a started backend."""
    app = create_app(assemble(settings, plugins, backend, card))
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=log.isEnabledFor(logging.DEBUG),
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        # Annotated as int, but it goes to asyncio.wait_for.
        timeout_graceful_shutdown=cast(int, settings.shutdown_timeout),
    )
    return Listener(config)


def assemble(settings: Settings, plugins: Plugins, backend: Backend, card: ModelCard) -> Server:
    """Everything that answers a request."""
    tokenizer = Tokenizer.load(Path(card.tokenizer))
    templates = plugins.chat_templates(TemplateContext(card=card, file=settings.server.chat_template)) or {}
    config = with_chosen_parsers(settings.server, plugins, templates, tokenizer)
    metrics = MetricsContext(
        model_name=config.served_model_name, max_model_len=card.max_model_len, config=settings.metrics
    )
    return Server(
        config=config,
        plugins=plugins,
        backend=backend,
        backend_name=(settings.backend, *settings.backend_config.chain)[-1],
        card=card,
        tokenizer=tokenizer,
        template=chat_template(config, templates, tokenizer),
        reasoning=plugins.reasoning_parsers.load(config.reasoning_parser)
        if config.reasoning_parser
        else None,
        tools=plugins.tool_parsers.load(config.tool_call_parser) if config.tool_call_parser else None,
        collectors=plugins.collectors(metrics),
    )


def chat_template(
    config: ServerConfig, templates: ChatTemplates, tokenizer: Tokenizer
) -> ChatTemplate | None:
    """The templates, compiled; ``None``, with a warning, where there is none, or a broken one."""
    if not templates:
        log.warning("the model has no chat template: chat needs --chat-template FILE, completions work")
        return None
    try:
        return ChatTemplate.compile(
            templates,
            special_tokens=tokenizer.special_tokens,
            content_format=config.chat_template_content_format,
        )
    except ConfigError as error:
        log.warning("%s; chat needs --chat-template FILE, completions work", error)
        return None
