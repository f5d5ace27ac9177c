"""Select the tool-call and the reasoning parser; ``auto`` detects them from the model."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fllm.containment import contained
from fllm.errors import PluginError
from fllm.events import Text
from fllm.interfaces import LoadedParser, ParserContext
from fllm.plugins.loader import Plugins
from fllm.plugins.parser_detection import AUTO, ModelTraits, ParserEntry, candidates, detect
from fllm.plugins.registry import Registry
from fllm.values import ChatTemplates
from fllm_api.config import ServerConfig

if TYPE_CHECKING:
    from fllm.chat import ChatTemplate
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
    """Return the configuration with each ``auto`` replaced by a parser's name or ``None``.

    Log the result. A parser that can't be imported is not used."""
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
            with contained(lambda error: log.warning("%s: none is used: %s", option, error)):
                registry.load(name)
                log.info("%s: %s (the model has %s)", option, name, _evidence(registry, name))
                return name
        case []:
            log.info("%s: no parser fits the model's chat template, so none is used", option)
        case several:
            log.warning(
                "%s: several parsers match, so none is used; name one of %s", option, ", ".join(several)
            )
    return None


def _evidence(registry: Registry[Any], name: str) -> str:
    entry = registry.entry(name)
    assert isinstance(entry, ParserEntry)
    return entry.evidence_text()


def warn_if_all_is_reasoning(
    name: str, parser: LoadedParser, template: ChatTemplate, templates: ChatTemplates
) -> None:
    """Log a warning if the model will hardly end a reasoning that the parser expects in each response.

    That is so if the parser takes plain text for reasoning, and no chat template has one of its markers.
    """
    if any(marker in text for marker in parser.visible_tokens for text in templates.values()):
        return
    with contained(lambda error: log.debug("%s could not be tried: %s", name, error)):
        prompt = template.render([{"role": "user", "content": "Hello"}])
        tried = parser(ParserContext(prompt=prompt))
        if not any(isinstance(event, Text) for event in (*tried.feed("Hello"), *tried.finish())):
            log.warning(
                "--reasoning-parser %s: responses begin with reasoning, but the chat template has none of "
                "%s; if the model writes none of them either, the whole response is reasoning_content",
                name,
                ", ".join(map(repr, parser.visible_tokens)),
            )
