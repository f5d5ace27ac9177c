"""A file of ``--shared-prefix``: a system prompt, or the beginning of chats as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from fllm.errors import ConfigError
from fllm.requests.chat import ChatMessage, ChatTool


class SharedChat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a chat request that decide how its prompt begins."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[ChatTool] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None


class SharedPrefix(Struct, frozen=True, kw_only=True):
    """The content of one file."""

    where: str
    """Name of the option and of the file, for messages."""
    chat: SharedChat
    text: str | None = None
    """Beginning of prompts of `/v1/completions`; ``None`` for a JSON file."""


def read_shared_prefix(file: Path) -> SharedPrefix:
    """Read a file: JSON if its name ends in ``.json``, otherwise text without its last line break.

    Raise `ConfigError` if it can't be read or is invalid.
    """
    where = f"--shared-prefix {file}"
    try:
        text = file.read_text("utf-8").removesuffix("\n")
        if file.suffix == ".json":
            return SharedPrefix(where=where, chat=msgspec.json.decode(text, type=SharedChat))
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, RecursionError) as error:
        raise ConfigError(f"{where} can't be read: {error}") from error
    if not text:
        raise ConfigError(f"{where} is empty")
    system_prompt = ChatMessage(role="system", content=text)
    return SharedPrefix(where=where, chat=SharedChat(messages=[system_prompt]), text=text)
