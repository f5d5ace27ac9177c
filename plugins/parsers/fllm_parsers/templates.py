"""Where chat templates come from: the user's file, asked before all others, or the model's own, after them.

Each resolver is the hook of a plugin of its own, since a module can implement a hook only once.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from fllm import ChatTemplates, ConfigError, ModelError, TemplateContext, hookimpl


@hookimpl(tryfirst=True)
def fllm_chat_template(context: TemplateContext) -> ChatTemplates | None:
    """The file of ``--chat-template``, for requests with tools too."""
    return None if context.file is None else {"default": _text(context.file, ConfigError, "--chat-template")}


def model_templates(directory: Path) -> ChatTemplates | None:
    """The templates beside a tokenizer: in files of their own or, failing these, in its configuration."""
    return _in_files(directory) or _in_config(directory / "tokenizer_config.json") or None


class _Named(Struct):
    name: str
    template: str


class _TokenizerConfig(Struct):
    chat_template: str | list[_Named] | None = None


def _in_files(directory: Path) -> dict[str, str]:
    files = {file.stem: file for file in sorted((directory / "additional_chat_templates").glob("*.jinja"))}
    default = directory / "chat_template.jinja"
    if default.is_file():
        files["default"] = default
    return {name: _text(file, ModelError, "the model") for name, file in files.items()}


def _in_config(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        found = msgspec.json.decode(file.read_bytes(), type=_TokenizerConfig).chat_template
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"the chat template can't be read from {str(file)!r}: {error}") from error
    if isinstance(found, list):
        return {named.name: named.template for named in found}
    return {"default": found} if found else {}


def _text(file: Path, error: type[ConfigError | ModelError], whose: str) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{whose}: the chat template {str(file)!r} can't be read: {cause}") from cause
