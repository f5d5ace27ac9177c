"""Load the tokenizer and the chat templates of a model, which a child process has checked before."""

from __future__ import annotations

import logging
from pathlib import Path

from msgspec import Struct

from fllm.chat import ChatTemplate, control_tokens
from fllm.chat.compiled_template import TemplateTooComplex
from fllm.errors import ConfigError, ModelError
from fllm.interfaces import Backend, TemplateContext
from fllm.model_check import ModelCheck, render_watchdog
from fllm.plugin_usage import UsageMeter
from fllm.plugins.loader import PluginReport, Plugins
from fllm.resident_memory import return_freed_memory
from fllm.tokenizer import Tokenizer
from fllm.values import ChatTemplates, ModelCard
from fllm_api.build_info import DISTRIBUTION
from fllm_api.config import ServerConfig

log = logging.getLogger("fllm.server")

TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json")
"""Files of a model that may contain its chat template, in order of precedence."""


class ModelFiles(Struct, frozen=True):
    """The tokenizer and the chat templates of a model."""

    tokenizer: Tokenizer
    templates: ChatTemplates
    template: ChatTemplate | None
    """The compiled templates; ``None`` if there are none or they are invalid."""


class StartedModel(Struct, frozen=True):
    """A started backend, and the files of its model."""

    backend: Backend
    card: ModelCard
    files: ModelFiles


def load_model_files(
    config: ServerConfig, plugins: Plugins, card: ModelCard, check: ModelCheck
) -> ModelFiles:
    """Check and load the files. Raise `UserError` if they are invalid or exceed the limits.

    The check is stopped. This may take seconds, so it runs outside the event loop.
    """
    directory = Path(card.tokenizer)
    check.check_tokenizer(directory)
    resolved = plugins.resolve_chat_templates(TemplateContext(card=card, file=config.chat_template))
    templates = resolved[1] if resolved else {}
    where = describe_origin(resolved[0], config.chat_template, directory) if resolved else ""
    if templates:
        check.check_templates(templates, config.chat_template_content_format, where)
    check.stop()  # its memory is free before this process loads what was checked
    tokenizer = Tokenizer.load(directory)
    return_freed_memory()
    _check_vocabulary(tokenizer, card)
    if not templates and card.pooling is not None:
        return ModelFiles(tokenizer, templates, None)
    if not resolved or not templates:
        log.warning("the model has no chat template: /v1/chat/completions requires --chat-template FILE")
        return ModelFiles(tokenizer, templates, None)
    plugin = resolved[0]
    log.info("prompts are rendered by %s", where)
    meter = plugins.usage.meter(plugin.name, "chat template", plugin.name)
    return ModelFiles(tokenizer, templates, _compile(config, templates, tokenizer, where, meter))


def _check_vocabulary(tokenizer: Tokenizer, card: ModelCard) -> None:
    """Raise `ModelError` if the tokenizer has more tokens than the model, added ones aside."""
    size = card.runtime.get("vocab_size")
    if size is not None and tokenizer.base_vocab_size > size:
        raise ModelError(
            f"{Path(card.tokenizer) / 'tokenizer.json'} has {tokenizer.base_vocab_size} tokens, and the "
            f"vocab_size of the model is {size}: they do not belong together"
        )


def _compile(
    config: ServerConfig, templates: ChatTemplates, tokenizer: Tokenizer, where: str, meter: UsageMeter
) -> ChatTemplate | None:
    """Compile the chat templates. Return ``None``, with a warning, if they are invalid."""
    try:
        template = ChatTemplate.compile(
            templates,
            special_tokens=tokenizer.special_tokens,
            content_format=config.chat_template_content_format,
            where=where,
            watchdog=render_watchdog(),
            control_tokens=None if config.allow_special_tokens_in_text else control_tokens(tokenizer),
            meter=meter,
        )
        if template.adaptations:
            log.info("%s can't express every conversation: %s", where, "; ".join(template.adaptations))
        return template
    except TemplateTooComplex:
        raise
    except ConfigError as error:
        log.warning("invalid chat template: /v1/chat/completions requires --chat-template FILE: %s", error)
        return None


def describe_origin(plugin: PluginReport, given: Path | None, directory: Path) -> str:
    """Return a description of the chat templates that names their file, or the plugin that has them.

    ``given``: the file of ``--chat-template``, which takes precedence over plugins, and these over the model.
    """
    if given is not None:
        return f"--chat-template {given}"
    if plugin.distribution != DISTRIBUTION:
        return f"the chat template of the plugin {plugin.title}"
    file = next((name for name in TEMPLATE_FILES if (directory / name).is_file()), "")
    return f"the chat template in {directory / file}"
