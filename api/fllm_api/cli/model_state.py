"""Build the state for the requests of one model. Heavy to import: imported while the first backend loads."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from msgspec.structs import replace

from fllm.chat import RequestTemplates, TemplateSettings, control_tokens
from fllm.errors import ConfigError
from fllm.plugins.parser_detection import AUTO
from fllm.values import ModelCard
from fllm_api.adapters import AdapterRegistry
from fllm_api.app_state import AppState, ParserChoice, ServerState
from fllm_api.cli.model_files import StartedModel
from fllm_api.cli.parser_selection import resolve_auto_parsers, warn_if_all_is_reasoning
from fllm_api.cli.settings import Settings
from fllm_api.config import ServerConfig
from fllm_api.intake.shared_prefix_file import read_shared_prefix
from fllm_api.intake.shared_prefixes import daily_prefixes, tokenize_shared_prefix

log = logging.getLogger("fllm.server")


def create_app_state(
    settings: Settings, shared: ServerState, started: StartedModel, adapters: AdapterRegistry
) -> AppState:
    """Return the state of one model, which holds everything that the handlers of its requests use."""
    plugins, backend, card, files = shared.plugins, started.backend, started.card, started.files
    tokenizer = files.tokenizer
    config = resolve_auto_parsers(settings.server, plugins, files.templates, tokenizer)
    reasoning_parser = None
    if (name := config.reasoning_parser) is not None:
        reasoning_parser = plugins.reasoning_parsers.load(name)
        if files.template is not None:
            warn_if_all_is_reasoning(name, reasoning_parser, files.template, files.templates)
    state = AppState(
        **{**shared.shared_fields, "config": config},
        backend=backend,
        backend_name=(settings.backend, *settings.backend_config.chain)[-1],
        card=card,
        tokenizer=tokenizer,
        template=files.template,
        request_templates=RequestTemplates(
            TemplateSettings(
                tokenizer.special_tokens,
                config.chat_template_content_format,
                None if config.allow_special_tokens_in_text else control_tokens(tokenizer),
            )
        )
        if config.trust_request_chat_template
        else None,
        reasoning_parser=reasoning_parser,
        tool_parser=plugins.tool_parsers.load(config.tool_call_parser) if config.tool_call_parser else None,
        parser_choices={
            "tool_call_parser": _choice(config.tool_call_parser, settings.server.tool_call_parser),
            "reasoning_parser": _choice(config.reasoning_parser, settings.server.reasoning_parser),
        },
        adapters=adapters,
        isolates_clients=isolates_clients(config, card),
    )
    return with_shared_prefixes(state)


def _choice(name: str | None, option: str | None) -> ParserChoice:
    return ParserChoice(name, "auto" if option == AUTO else "option")


def with_shared_prefixes(state: AppState) -> AppState:
    """Add the ``--shared-prefix`` files to the state. Raise `ConfigError` if the model can't have one."""
    prefixes = [read_shared_prefix(file) for file in state.config.shared_prefixes]
    if not prefixes:
        return state
    for prefix in prefixes:
        lengths = {kind: len(ids) for kind, ids in tokenize_shared_prefix(prefix, state).items()}
        log.info("%s: the first %s are shared", prefix.where, _format_lengths(lengths))
        if max(lengths.values()) < state.card.runtime.get("block_size", 1):
            log.warning("%s: nothing is shared, because it does not fill a block of the cache", prefix.where)
    return replace(state, shared_prefixes=daily_prefixes(prefixes, state))


def _format_lengths(lengths: Mapping[str, int]) -> str:
    return " and ".join(f"{length} tokens of {kind}" for kind, length in lengths.items())


def isolates_clients(config: ServerConfig, card: ModelCard) -> bool:
    """Return whether each client has its own prefix cache, which is the default if there are keys.

    If the backend can't do that, log a warning, or raise `ConfigError` if an option requires it.
    """
    isolation = config.prefix_cache_isolation or ("key" if config.keys.required else "none")
    if isolation == "none" or card.supports_cache_salt:
        return isolation == "key"
    problem = "this backend can't keep the prefix caches of clients apart"
    if config.prefix_cache_isolation == "key":
        raise ConfigError(f"--prefix-cache-isolation key: {problem}")
    log.warning("%s: usage and response times may tell a client what others have sent", problem)
    return False
