"""A model's chat templates, and how a conversation is rendered with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fllm.chat.compiled_template import FAILURES, TOOL, ContentFormat, Source, compile_source, one_line
from fllm.chat.continue_final_message import cut, mark
from fllm.chat.jinja_environment import Rejected
from fllm.chat.message_normalization import normalize
from fllm.chat.tool_prompt import tell
from fllm.errors import ConfigError, RequestError
from fllm.values import ChatTemplates

_OURS = ("messages", "tools", "add_generation_prompt", "continue_final_message")


class ChatTemplate:
    """A model's chat templates, compiled. Rendering may happen in any thread."""

    def __init__(self, sources: Mapping[str, Source], special_tokens: Mapping[str, str], where: str) -> None:
        self._sources = sources
        self._special_tokens = special_tokens
        self._where = where

    @classmethod
    def compile(
        cls,
        templates: ChatTemplates,
        *,
        special_tokens: Mapping[str, str],
        content_format: ContentFormat = "auto",
        where: str = "the chat template",
    ) -> ChatTemplate:
        """Compile all; raises `ConfigError` for what is not Jinja. ``where`` names their origin in errors."""
        sources = {name: compile_source(source, content_format, where) for name, source in templates.items()}
        return cls(sources, special_tokens, where)

    def check(self) -> None:
        """Render a simple message, with or without a tool; raises `ConfigError` if neither works.

        That the template itself refuses it is no error.
        """
        source = self._sources.get("default")
        if source is None:
            raise ConfigError(f"{self._where}: {self._no_default()}")
        if (failure := _failure(source, None)) and _failure(source, [TOOL]):
            raise ConfigError(f"{self._where} can't render a simple message: {one_line(failure)}")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        inject_tools: bool = False,
        kwargs: Mapping[str, Any] = {},
    ) -> str:
        """Text of the prompt, special tokens included; raises `RequestError`.

        Messages and tools are OpenAI's, as plain values; ``kwargs`` are further variables of the template.
        With ``inject_tools`` a message tells of the tools where the template does not show them. With
        ``continue_final_message`` the text ends where the last message's content ends.
        """
        _refuse_conflicts(messages, add_generation_prompt, continue_final_message, kwargs)
        source = self._source(tools=bool(tools))
        conversation = normalize(messages, source.form)
        if tools and inject_tools:
            conversation = tell(conversation, tools, source.teller)
        variables = {
            "documents": None,
            **self._special_tokens,
            **kwargs,
            "messages": mark(conversation) if continue_final_message else conversation,
            "tools": tools or None,
            "add_generation_prompt": add_generation_prompt,
        }
        text = _render(source, variables)
        return cut(text, conversation) if continue_final_message else text

    def _source(self, *, tools: bool) -> Source:
        if tools and "tool_use" in self._sources:
            return self._sources["tool_use"]
        if "default" in self._sources:
            return self._sources["default"]
        raise RequestError(self._no_default())

    def _no_default(self) -> str:
        names = ", ".join(sorted(self._sources)) or "none"
        return f"there is no default chat template (there are: {names}); give one with --chat-template FILE"


def _render(source: Source, variables: Mapping[str, Any]) -> str:
    try:
        return source.template.render(variables)
    except FAILURES as error:
        verb = "refuses" if isinstance(error, Rejected) else "fails on"
        raise RequestError(
            f"the chat template {verb} the conversation: {one_line(error)}", param="messages"
        ) from error


def _failure(source: Source, tools: Sequence[Mapping[str, Any]] | None) -> Exception | None:
    try:
        source.try_out([{"role": "user", "content": "Hello"}], tools)
    except Rejected:
        return None
    except FAILURES as error:
        return error
    return None


def _refuse_conflicts(
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    continue_final_message: bool,
    kwargs: Mapping[str, Any],
) -> None:
    if not messages:
        raise RequestError("there is no message", param="messages")
    if continue_final_message and add_generation_prompt:
        raise RequestError(
            "continue_final_message can't be used with add_generation_prompt", param="continue_final_message"
        )
    if continue_final_message and messages[-1].get("content") is None:
        raise RequestError(
            "the final message has no content to continue", param=f"messages[{len(messages) - 1}].content"
        )
    for name in _OURS:
        if name in kwargs:
            raise RequestError(
                f"{name!r} is a field of the request itself", param=f"chat_template_kwargs.{name}"
            )
