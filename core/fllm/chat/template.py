"""A model's chat templates, and how to render a conversation with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from time import perf_counter
from typing import Any, TypeVar

from msgspec.structs import replace

from fllm.chat.compiled_template import (
    RENDER_ERRORS,
    CompiledTemplate,
    ContentFormat,
    TemplateTooComplex,
    compile_template,
    one_line,
)
from fllm.chat.continue_final_message import cut_at_marker, insert_marker
from fllm.chat.jinja_environment import ConversationRejected
from fllm.chat.message_escaping import ControlTokens, MessageEscaper
from fllm.chat.message_normalization import normalize_messages
from fllm.chat.reasoning_controls import ReasoningControls
from fllm.chat.template_rules import PROBE_TOOL, TemplateRules
from fllm.chat.tool_prompt import DEFAULT_CALL_FORMAT, CallFormat, add_instructions, add_tool_prompt
from fllm.concurrency.thread_watchdog import LimitExceeded, ThreadWatchdog
from fllm.errors import ConfigError, RequestError
from fllm.plugin_usage import UsageMeter
from fllm.values import ChatTemplates

T = TypeVar("T")

EVENT_LOOP_SECONDS = 0.1
"""Maximum CPU time of rendering on an event loop."""

_RESERVED_VARIABLES = ("messages", "tools", "add_generation_prompt", "continue_final_message")


class SlowTemplate(Exception):
    """Rendering takes too long for an event loop: render in another thread."""


class ChatTemplate:
    """A model's compiled chat templates. Rendering is thread-safe."""

    def __init__(
        self,
        templates: Mapping[str, CompiledTemplate],
        special_tokens: Mapping[str, str],
        where: str,
        watchdog: ThreadWatchdog | None = None,
        meter: UsageMeter | None = None,
    ) -> None:
        self._templates = templates
        self._special_tokens = special_tokens
        self._where = where
        self._watchdog = watchdog
        self._meter = UsageMeter() if meter is None else meter
        self.slow = False
        """Whether a conversation has exceeded a limit. Render outside the event loop from then on."""

    @property
    def where(self) -> str:
        """The origin of the templates: a file, a plugin or the model."""
        return self._where

    @property
    def reasoning_controls(self) -> ReasoningControls:
        """The variables that turn reasoning on and off."""
        return self._select(has_tools=False).reasoning_controls

    @classmethod
    def compile(
        cls,
        templates: ChatTemplates,
        *,
        special_tokens: Mapping[str, str],
        content_format: ContentFormat = "auto",
        where: str = "the chat template",
        watchdog: ThreadWatchdog | None = None,
        control_tokens: ControlTokens | None = None,
        meter: UsageMeter | None = None,
    ) -> ChatTemplate:
        """Compile all templates; raise `ConfigError` for invalid Jinja.

        ``control_tokens`` are text in messages; with ``None`` they keep their meaning there. ``where`` names
        the origin of the templates in error messages. ``watchdog`` limits compiling and rendering: raise
        `TemplateTooComplex` if it interrupts one. ``meter`` counts the rendered prompts and their time.
        """
        try:
            compiled = {
                name: _run(watchdog, partial(compile_template, text, content_format, where, control_tokens))
                for name, text in templates.items()
            }
        except LimitExceeded as error:
            raise TemplateTooComplex(f"{where} is too complex: {error}") from None
        return cls(compiled, special_tokens, where, watchdog, meter)

    @property
    def adaptations(self) -> list[str]:
        """Descriptions of what is adapted, because the templates can't express it."""
        return list(dict.fromkeys(chain.from_iterable(each.adaptations for each in self._templates.values())))

    @property
    def call_id_factory(self) -> Callable[[], str] | None:
        """The function that makes ids of calls, if the template with tools accepts only ids of one form."""
        return self._select(has_tools=True).rules_with_tools.call_id_factory

    def check(self) -> None:
        """Render a simple message without and with a tool; raise `ConfigError` if neither works.

        A template that rejects the message by ``raise_exception`` passes the check.
        """
        template = self._templates.get("default")
        if template is None:
            raise ConfigError(f"{self._where}: {self._no_default()}")
        try:
            failure = _run(
                self._watchdog, lambda: _failure(template, None) and _failure(template, [PROBE_TOOL])
            )
        except LimitExceeded as error:
            raise TemplateTooComplex(f"{self._where} is too complex: {error}") from None
        if failure:
            raise ConfigError(f"{self._where} can't render a simple message: {one_line(failure)}")

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        inject_tools: bool = False,
        call_format: CallFormat = DEFAULT_CALL_FORMAT,
        explain_calls: bool = False,
        adapt: bool = True,
        keep_image_parts: bool = True,
        kwargs: Mapping[str, Any] = {},
    ) -> str:
        """Return the text of the prompt, special tokens included; raise `RequestError` if that fails.

        Control tokens in the text of messages are marked, which `Tokenizer.encode` understands;
        `fllm.control_tokens.unescape` removes the marks. Raise `SlowTemplate` on an event loop if it takes
        too long there.

        Messages and tools are OpenAI's, as plain values. ``kwargs`` are further variables of the template.
        With ``inject_tools``, a message lists the tools if the template does not render them. Calls
        that it does not render become text in ``call_format``. With ``explain_calls``, a message explains the
        format if there are tools. With ``continue_final_message``, the text ends where the last message's
        content ends. With ``adapt``, what the template can't express is adapted: `fllm.chat.template_rules`.
        Without ``keep_image_parts``, parts that stand for images become text: see `fllm.chat.image_prompt`.
        """
        _check_conflicts(messages, add_generation_prompt, continue_final_message, kwargs)
        template = self._select(has_tools=bool(tools))
        rules = template.rules_with_tools if tools else template.rules
        if adapt:
            _check_roles(messages, rules)
        message_format = replace(template.message_format, images=keep_image_parts)
        conversation = normalize_messages(messages, message_format)
        for adaptation in template.tool_adaptations if adapt and tools else ():
            tools = [adaptation.adapt(tool) for tool in tools or ()]
        explained = call_format if tools and explain_calls else None
        if tools and inject_tools and not template.renders_tools:
            conversation = add_tool_prompt(conversation, template.system_role, tools, explained)
        elif explained:
            conversation = add_instructions(conversation, explained)
        if escaper := template.escaper:
            conversation = escaper.escape_messages(conversation)
            tools = escaper.escape_foreign(tools)
            kwargs = self._escape_variables(kwargs, escaper)
        if adapt and rules.adaptations:
            conversation = normalize_messages(rules.adapt(conversation, call_format), message_format)
        variables = {
            "documents": None,
            **self._special_tokens,
            **kwargs,
            "messages": insert_marker(conversation) if continue_final_message else conversation,
            "tools": tools or None,
            "add_generation_prompt": add_generation_prompt,
        }
        text = self._render(template, variables)
        return cut_at_marker(text, conversation) if continue_final_message else text

    def _escape_variables(self, variables: Mapping[str, Any], escaper: MessageEscaper) -> dict[str, Any]:
        """Return the variables of a request with all strings escaped, except special tokens."""
        escaped = {
            name: value if name in self._special_tokens else escaper.escape_variable(value)
            for name, value in variables.items()
        }
        return escaped | {"documents": escaper.escape_foreign(variables.get("documents"))}

    def _render(self, template: CompiledTemplate, variables: Mapping[str, Any]) -> str:
        # Only in a thread without an event loop may a conversation take long.
        seconds = None if asyncio._get_running_loop() is None else EVENT_LOOP_SECONDS
        started_at = perf_counter()
        try:
            text = _run(self._watchdog, partial(_render, template, variables), seconds)
            self._meter.add(calls=1, seconds=perf_counter() - started_at, characters=len(text))
            return text
        except RequestError:
            self._meter.add(errors=1)
            raise
        except LimitExceeded as error:
            self._meter.add(errors=1)
            self.slow = True
            if seconds is not None:
                raise SlowTemplate from None
            raise RequestError(
                f"the conversation is too complex for the chat template: {error}", param="messages"
            ) from None

    def _select(self, *, has_tools: bool) -> CompiledTemplate:
        if has_tools and "tool_use" in self._templates:
            return self._templates["tool_use"]
        if "default" in self._templates:
            return self._templates["default"]
        raise RequestError(self._no_default())

    def _no_default(self) -> str:
        names = ", ".join(sorted(self._templates)) or "none"
        return f"there is no default chat template (there are: {names}); give one with --chat-template FILE"


def _run(watchdog: ThreadWatchdog | None, function: Callable[[], T], seconds: float | None = None) -> T:
    return function() if watchdog is None else watchdog.run(function, cpu_seconds=seconds)


def _render(template: CompiledTemplate, variables: Mapping[str, Any]) -> str:
    try:
        return template.template.render(variables)
    except RENDER_ERRORS as error:
        verb = "rejects" if isinstance(error, ConversationRejected) else "fails on"
        raise RequestError(
            f"the chat template {verb} the conversation: {one_line(error)}", param="messages"
        ) from error


def _check_roles(messages: Sequence[Mapping[str, Any]], rules: TemplateRules) -> None:
    for i, message in enumerate(messages):
        if (role := message["role"]) not in rules.roles:
            roles = ", ".join(sorted(rules.roles))
            raise RequestError(
                f"the model has no messages of the role {role!r}; the roles of its chat template are {roles}",
                param=f"messages[{i}].role",
            )


def _failure(template: CompiledTemplate, tools: Sequence[Mapping[str, Any]] | None) -> Exception | None:
    try:
        template.probe([{"role": "user", "content": "Hello"}], tools)
    except ConversationRejected:
        return None
    except RENDER_ERRORS as error:
        return error
    return None


def _check_conflicts(
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool,
    continue_final_message: bool,
    kwargs: Mapping[str, Any],
) -> None:
    if not messages:
        raise RequestError("there must be at least one message", param="messages")
    if continue_final_message and add_generation_prompt:
        raise RequestError(
            "continue_final_message can't be used with add_generation_prompt", param="continue_final_message"
        )
    if continue_final_message and (messages[-1].get("content") is None or messages[-1].get("tool_calls")):
        raise RequestError(
            "only a final message with content and without tool calls can be continued",
            param=f"messages[{len(messages) - 1}].content",
        )
    for name in _RESERVED_VARIABLES:
        if name in kwargs:
            raise RequestError(
                f"{name!r} is a field of the request itself", param=f"chat_template_kwargs.{name}"
            )
