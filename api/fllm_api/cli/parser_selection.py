"""Select the tool-call and the reasoning parser; ``auto`` detects them from the model."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fllm.errors import PluginError
from fllm.interfaces import LoadedParser
from fllm.plugins.loader import Plugins
from fllm.plugins.parser_detection import AUTO, ModelTraits, candidates, detect
from fllm.plugins.registry import Registry
from fllm.values import ChatTemplates
from fllm_api.config import ServerConfig

if TYPE_CHECKING:
    from fllm.tokenizer import Tokenizer

log = logging.getLogger("fllm.server")


P = TypeVar("P", bound=LoadedParser)


def load_possible_parsers(registry: Registry[P], name: str | None) -> list[P]:
    """Import the named parser, or all parsers that ``auto`` may select.

    Raise `PluginError` if the named parser can't be imported.
    """
    if name is None:
        return []
    if name != AUTO:
        return [registry.load(name)]
    parsers = []
    for entry in candidates(registry):
        with suppress(PluginError):  # reported only if the parser is selected
            parsers.append(registry.load(entry.name))
    return parsers


def resolve_auto_parsers(
    config: ServerConfig, plugins: Plugins, templates: ChatTemplates, tokenizer: Tokenizer
) -> ServerConfig:
    """Return the configuration with each ``auto`` replaced by a parser's name or ``None``. Log the result."""
    model = ModelTraits(
        templates="\n".join(templates.values()),
        has_token=lambda token: tokenizer.token_to_id(token) is not None,
    )
    kinds: dict[str, Registry[Any]] = {
        "tool_call_parser": plugins.tool_parsers,
        "reasoning_parser": plugins.reasoning_parsers,
    }
    selected = {
        field: _select_parser(f"--{field.replace('_', '-')} {AUTO}", registry, model)
        for field, registry in kinds.items()
        if getattr(config, field) == AUTO
    }
    return msgspec.structs.replace(config, **selected)


def _select_parser(option: str, registry: Registry[Any], model: ModelTraits) -> str | None:
    match detect(registry, model):
        case [name]:
            log.info("%s: %s", option, name)
            return name
        case []:
            log.warning("%s: no parser matches the model's chat template, so none is used", option)
        case several:
            log.warning(
                "%s: several parsers match, so none is used; name one of %s", option, ", ".join(several)
            )
    return None
