"""Which parsers a server uses, where ``auto`` asks for those that fit the model."""

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
    """The parser of that name, imported, or all that ``auto`` may choose; raises `PluginError` for a name."""
    if name is None:
        return []
    if name != AUTO:
        return [registry.load(name)]
    found = []
    for entry in candidates(registry):
        with suppress(PluginError):  # it is told of if it is chosen
            found.append(registry.load(entry.name))
    return found


def resolve_auto_parsers(
    config: ServerConfig, plugins: Plugins, templates: ChatTemplates, tokenizer: Tokenizer
) -> ServerConfig:
    """The same with a name, or nothing, in place of each ``auto``; the log says which and why."""
    model = ModelTraits(
        templates="\n".join(templates.values()),
        has_token=lambda token: tokenizer.token_to_id(token) is not None,
    )
    kinds: dict[str, Registry[Any]] = {
        "tool_call_parser": plugins.tool_parsers,
        "reasoning_parser": plugins.reasoning_parsers,
    }
    chosen = {
        field: _chosen(f"--{field.replace('_', '-')} {AUTO}", registry, model)
        for field, registry in kinds.items()
        if getattr(config, field) == AUTO
    }
    return msgspec.structs.replace(config, **chosen)


def _chosen(option: str, registry: Registry[Any], model: ModelTraits) -> str | None:
    match detect(registry, model):
        case [name]:
            log.info("%s: %s", option, name)
            return name
        case []:
            log.warning("%s: no parser fits the model's chat template, so none is used", option)
        case several:
            log.warning("%s: %s fit alike, so none is used; name one", option, " and ".join(several))
    return None
