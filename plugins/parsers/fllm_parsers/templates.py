"""The chat-template resolvers: the file of ``--chat-template``, and the templates of the model.

The file takes precedence over the templates of plugins, and these over those of the model. Each resolver
belongs to a separate plugin, since a module can implement a hook only once.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from fllm import ChatTemplates, ConfigError, ModelError, TemplateContext, hookimpl
from fllm.files import read_bounded
from fllm.tokenizer import MAX_CONFIG_BYTES


@hookimpl(tryfirst=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """Return the template in the file of ``--chat-template``, which applies to requests with tools, too."""
    return (
        None
        if context.file is None
        else {"default": _read_text(context.file, ConfigError, "--chat-template")}
    )


def model_templates(directory: Path) -> ChatTemplates | None:
    """Return the templates next to a tokenizer: from template files, or else from its configuration."""
    return (
        _from_files(directory)
        or _from_config(directory / "tokenizer_config.json")
        or _from_config(directory / "chat_template.json")  # of a processor
        or None
    )


MAX_TEMPLATE_BYTES = 1024**2
"""Maximum size of a template file. The longest templates of published models have 20,000 characters."""


class _NamedTemplate(Struct):
    name: str
    template: str


class _TokenizerConfig(Struct):
    chat_template: str | list[_NamedTemplate] | None = None


def _from_files(directory: Path) -> dict[str, str]:
    files = {file.stem: file for file in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    default = directory / "chat_template.jinja"
    if default.exists():
        files["default"] = default
    return {name: _read_text(file, ModelError, "the model") for name, file in files.items()}


def _from_config(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    try:
        content = read_bounded(file, MAX_CONFIG_BYTES)
        templates = msgspec.json.decode(content, type=_TokenizerConfig).chat_template
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise ModelError(f"cannot read the chat template from {str(file)!r}: {error}") from error
    if isinstance(templates, list):
        return {entry.name: entry.template for entry in templates}
    return {"default": templates} if templates else {}


def _read_text(file: Path, error: type[ConfigError | ModelError], source: str) -> str:
    try:
        return read_bounded(file, MAX_TEMPLATE_BYTES).decode()
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{source}: cannot read the chat template {str(file)!r}: {cause}") from cause
