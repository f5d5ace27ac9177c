"""A compiled template and the message format that it takes, found by inspecting and probing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from jinja2 import Template, TemplateError, TemplateSyntaxError
from msgspec import Struct
from msgspec.structs import replace

from fllm.chat.jinja_environment import OversizedResult, jinja_environment
from fllm.chat.message_escaping import ControlTokens, MessageEscaper
from fllm.chat.message_normalization import EmptyContent, MessageFormat, normalize_messages
from fllm.chat.reasoning_controls import ReasoningControls, reasoning_controls
from fllm.chat.template_introspection import TemplateTraits, template_traits
from fllm.chat.template_rules import PROBE_TOOL, TemplateRules, find_rules
from fllm.chat.tool_adaptation import ToolAdaptation, Tools, find_tool_adaptations
from fllm.chat.tool_prompt import TextRole
from fllm.errors import ConfigError

ContentFormat = Literal["auto", "string", "openai"]
"""How content is passed to a template: as a string, as a list of parts, or as its source implies."""

RENDER_ERRORS = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""Exceptions that rendering may raise: Jinja does not wrap what Python raises inside a template."""


class TemplateTooComplex(ConfigError):
    """Compiling the template, or rendering a simple conversation, exceeds a limit."""


class CompiledTemplate(Struct, frozen=True):
    """A compiled template, with the format of its messages, and whether it renders tools and calls."""

    template: Template
    message_format: MessageFormat
    renders_tools: bool = True
    """Whether it renders the list of tools; otherwise a message lists them."""
    system_role: TextRole = "system"
    """The role of instructions: "user" if the template does not render system messages."""
    reasoning_controls: ReasoningControls = ReasoningControls()
    escaper: MessageEscaper | None = None
    """Escapes control tokens in the text of messages, unless they are allowed there."""
    rules: TemplateRules = TemplateRules()
    rules_with_tools: TemplateRules = TemplateRules()
    """The rules of requests with tools, which some templates put into a message."""
    tool_adaptations: tuple[ToolAdaptation, ...] = ()

    def probe(self, messages: Sequence[Mapping[str, Any]], tools: Tools | None) -> str:
        """Render with empty special tokens, since the model's own are not known yet."""
        return self.template.render(
            dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), ""),
            messages=normalize_messages(messages, self.message_format),
            tools=tools,
            documents=None,
            add_generation_prompt=True,
        )

    @property
    def adaptations(self) -> list[str]:
        """Descriptions of what is adapted, because the template can't express it."""
        changes = [*self.rules.adaptations, *self.rules_with_tools.adaptations]
        descriptions = [each.description for each in changes] + [
            each.description for each in self.tool_adaptations
        ]
        return list(dict.fromkeys(descriptions))


def compile_template(
    source: str, content_format: ContentFormat, where: str, tokens: ControlTokens | None = None
) -> CompiledTemplate:
    """Compile a Jinja source; raise `ConfigError` with the line of a syntax error.

    Raise `TemplateTooComplex` if it can't be compiled, or if a simple conversation exceeds a limit.
    """
    jinja = jinja_environment()
    try:
        tree = jinja.parse(source)
        traits, controls = template_traits(tree), reasoning_controls(tree)
        template = jinja.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno}: {one_line(error)}") from error
    except RecursionError as error:
        raise TemplateTooComplex(f"{where} is too complex: {one_line(error)}") from error
    escaper = None if tokens is None else MessageEscaper(tokens, source, traits.searched, traits.cut)
    try:
        compiled = CompiledTemplate(
            template,
            _message_format(traits, content_format),
            reasoning_controls=controls,
            escaper=escaper,
        )
        if content_format == "auto":
            compiled = _with_content_format(compiled)
        compiled = _with_tool_call_format(_with_system_roles(compiled))
        return replace(
            compiled,
            renders_tools=traits.uses_tools,
            system_role="system" if _renders(compiled, "system") else "user",
            rules=_find_rules(compiled, traits, None),
            rules_with_tools=_find_rules(compiled, traits, [PROBE_TOOL]),
            tool_adaptations=find_tool_adaptations(
                lambda tools: _try_render(compiled, [{"role": "user", "content": "Hello"}], tools)
            ),
        )
    except _TOO_COMPLEX as error:
        raise TemplateTooComplex(f"{where} is too complex: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, to quote it in another message."""
    return " ".join(str(error).split()) or type(error).__name__


def _message_format(traits: TemplateTraits, content_format: ContentFormat) -> MessageFormat:
    lists = traits.loops_over_content
    strings = traits.tests_for_string or not traits.loops_over_content
    if content_format != "auto":
        lists, strings = content_format == "openai", content_format == "string"
    return MessageFormat(lists=lists, strings=strings, developer_role=traits.mentions_developer)


_TOO_COMPLEX = (OversizedResult, MemoryError)
"""Errors of a simple conversation that show that the template is too complex."""

MAX_ROLES = 64
"""Names in a template's source that are tried as roles."""

_PROBE_TOOL_CALL: Sequence[Mapping[str, Any]] = (
    {"role": "user", "content": "Hello"},
    # Mistral's templates require ids of nine characters.
    {"role": "assistant", "tool_calls": [{"id": "abcdefghi", "function": {"name": "called"}}]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "Hello"},
)


def _with_content_format(compiled: CompiledTemplate) -> CompiledTemplate:
    """Return the template with the format of content that its source implies, or else one that it renders.

    Some templates loop over the content of messages of one role only.
    """
    strings, lists = (
        replace(compiled.message_format, lists=as_list, strings=not as_list) for as_list in (False, True)
    )
    candidates = (compiled, *(replace(compiled, message_format=each) for each in (strings, lists)))
    messages = [{"role": "user", "content": "Hello"}]
    return next((each for each in candidates if "Hello" in _try_render(each, messages, None)), compiled)


def _with_tool_call_format(compiled: CompiledTemplate) -> CompiledTemplate:
    """Return the template with the first message format that renders a tool call without text content.

    If there is no content, some templates fail, write ``None`` or omit the call; if it is empty, others
    render an empty message next to the call. DeepSeek's own templates concatenate the arguments to a string.
    The formats are therefore tried in turn.
    """
    formats = (
        replace(compiled.message_format, arguments_as_text=as_text, empty_content=empty_content)
        for as_text in (False, True)
        for empty_content in get_args(EmptyContent)
    )
    candidates = (replace(compiled, message_format=each) for each in formats)
    return next((each for each in candidates if _renders_tool_calls(each)), compiled)


def _find_rules(compiled: CompiledTemplate, traits: TemplateTraits, tools: Tools | None) -> TemplateRules:
    return find_rules(
        lambda messages: _try_render(compiled, messages, tools),
        sorted(traits.roles)[:MAX_ROLES],
        knows_tools=traits.uses_tools,
    )


def _try_render(
    compiled: CompiledTemplate, messages: Sequence[Mapping[str, Any]], tools: Tools | None
) -> str:
    try:
        return compiled.probe(messages, tools)
    except _TOO_COMPLEX:
        raise
    except RENDER_ERRORS:
        return ""


def _with_system_roles(compiled: CompiledTemplate) -> CompiledTemplate:
    """Return the template with the roles ``system`` and ``developer``, or the one that it renders."""
    message_format = compiled.message_format
    if not message_format.developer_role or _renders(compiled, "system") == _renders(compiled, "developer"):
        return compiled
    knows_system = _renders(compiled, "system")
    message_format = replace(message_format, developer_role=not knows_system, system_role=knows_system)
    return replace(compiled, message_format=message_format)


def _renders(compiled: CompiledTemplate, role: str) -> bool:
    """Return whether the template renders messages of this role."""
    messages = [{"role": role, "content": "Be brief"}, {"role": "user", "content": "Hello"}]
    return "Be brief" in _try_render(compiled, messages, None)


def _renders_tool_calls(compiled: CompiledTemplate) -> bool:
    text = _try_render(compiled, _PROBE_TOOL_CALL, [PROBE_TOOL])
    return "called" in text and "None" not in text
