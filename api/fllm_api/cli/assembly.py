"""Build the HTTP server over a started backend. Heavy to import: imported while the backend loads."""

from __future__ import annotations

import logging
from pathlib import Path

from fllm.chat import ChatTemplate, RequestTemplates, TemplateSettings
from fllm.errors import ConfigError
from fllm.interfaces import Backend, MetricsContext, TemplateContext
from fllm.plugins.loader import Plugins
from fllm.tokenizer import Tokenizer
from fllm.values import ChatTemplates, ModelCard
from fllm_api.app import create_app
from fllm_api.app_state import AppState
from fllm_api.cli.parser_selection import resolve_auto_parsers
from fllm_api.cli.settings import Settings
from fllm_api.config import ServerConfig
from fllm_api.listener import ConnectionTimeouts, Listener

log = logging.getLogger("fllm.server")


def create_listener(settings: Settings, plugins: Plugins, backend: Backend, card: ModelCard) -> Listener:
    """Return the HTTP server for a started backend."""
    state = create_app_state(settings, plugins, backend, card)
    config = state.config
    return Listener(
        create_app(state),
        state.drain,
        ConnectionTimeouts(read=config.read_timeout, write=config.write_timeout),
        max_connections=config.max_connections,
        shutdown_timeout=settings.shutdown_timeout,
        trusted_proxies=config.trusted_proxies,
    )


def create_app_state(settings: Settings, plugins: Plugins, backend: Backend, card: ModelCard) -> AppState:
    """Return the application state, which holds everything that request handlers use."""
    tokenizer = Tokenizer.load(Path(card.tokenizer))
    templates = plugins.chat_templates(TemplateContext(card=card, file=settings.server.chat_template)) or {}
    config = resolve_auto_parsers(settings.server, plugins, templates, tokenizer)
    metrics = MetricsContext(
        model_name=config.served_model_name, max_model_len=card.max_model_len, config=settings.metrics
    )
    return AppState(
        config=config,
        plugins=plugins,
        backend=backend,
        backend_name=(settings.backend, *settings.backend_config.chain)[-1],
        card=card,
        tokenizer=tokenizer,
        template=compile_chat_template(config, templates, tokenizer),
        request_templates=RequestTemplates(
            TemplateSettings(tokenizer.special_tokens, config.chat_template_content_format)
        )
        if config.trust_request_chat_template
        else None,
        reasoning_parser=plugins.reasoning_parsers.load(config.reasoning_parser)
        if config.reasoning_parser
        else None,
        tool_parser=plugins.tool_parsers.load(config.tool_call_parser) if config.tool_call_parser else None,
        collectors=plugins.collectors(metrics),
    )


def compile_chat_template(
    config: ServerConfig, templates: ChatTemplates, tokenizer: Tokenizer
) -> ChatTemplate | None:
    """Compile the chat templates. Return ``None``, with a warning, if there are none or they are invalid."""
    if not templates:
        log.warning("the model has no chat template: /v1/chat/completions requires --chat-template FILE")
        return None
    try:
        return ChatTemplate.compile(
            templates,
            special_tokens=tokenizer.special_tokens,
            content_format=config.chat_template_content_format,
        )
    except ConfigError as error:
        log.warning("invalid chat template: /v1/chat/completions requires --chat-template FILE: %s", error)
        return None
