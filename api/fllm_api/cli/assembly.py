"""Build the HTTP server over a started backend. Heavy to import: imported while the backend loads."""

from __future__ import annotations

from fllm.chat import RequestTemplates, TemplateSettings
from fllm.interfaces import Backend, MetricsContext
from fllm.plugins.loader import Plugins
from fllm.values import ModelCard
from fllm_api.app import create_app
from fllm_api.app_state import AppState
from fllm_api.cli.model_files import ModelFiles
from fllm_api.cli.parser_selection import resolve_auto_parsers
from fllm_api.cli.settings import Settings
from fllm_api.listener import ConnectionTimeouts, Listener


def create_listener(
    settings: Settings, plugins: Plugins, backend: Backend, card: ModelCard, files: ModelFiles
) -> Listener:
    """Return the HTTP server for a started backend."""
    state = create_app_state(settings, plugins, backend, card, files)
    config = state.config
    return Listener(
        create_app(state),
        state.drain,
        ConnectionTimeouts(read=config.read_timeout, write=config.write_timeout),
        max_connections=config.max_connections,
        shutdown_timeout=settings.shutdown_timeout,
        trusted_proxies=config.trusted_proxies,
    )


def create_app_state(
    settings: Settings, plugins: Plugins, backend: Backend, card: ModelCard, files: ModelFiles
) -> AppState:
    """Return the application state, which holds everything that request handlers use."""
    tokenizer = files.tokenizer
    config = resolve_auto_parsers(settings.server, plugins, files.templates, tokenizer)
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
        template=files.template,
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
