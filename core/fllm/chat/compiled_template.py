"""One template: compiled, and tried out for the form of messages that it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from jinja2 import Template, TemplateError, TemplateSyntaxError
from msgspec import Struct
from msgspec.structs import replace

from fllm.chat.jinja_environment import environment
from fllm.chat.message_normalization import Form, Silence, normalize
from fllm.chat.template_introspection import TemplateTraits, template_traits
from fllm.chat.tool_prompt import Teller
from fllm.errors import ConfigError

ContentFormat = Literal["auto", "string", "openai"]
"""How content reaches a template: as text, as a list of parts, or as the template's source says."""

FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
)
"""What rendering may raise: Jinja wraps nothing of what Python raises inside a template."""


class Source(Struct, frozen=True):
    """A compiled template."""

    template: Template
    form: Form
    teller: Teller = "template"

    def try_out(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> str:
        """Render with blank special tokens, since the model's own are not known yet."""
        return self.template.render(
            dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), ""),
            messages=normalize(messages, self.form),
            tools=tools,
            documents=None,
            add_generation_prompt=True,
        )


def compile_source(text: str, content_format: ContentFormat, where: str) -> Source:
    """Compile; raises `ConfigError` with the line of what is not Jinja."""
    jinja = environment()
    try:
        found = template_traits(jinja.parse(text))
        template = jinja.from_string(text)
    except TemplateSyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno}: {one_line(error)}") from error
    source = _with_calls(Source(template, _form(found, content_format)))
    if found.knows_tools:
        return source
    return replace(source, teller="system" if _hears_system(source) else "user")


def one_line(error: Exception) -> str:
    """An error's message, as a part of one of ours."""
    return " ".join(str(error).split()) or type(error).__name__


def _form(found: TemplateTraits, content_format: ContentFormat) -> Form:
    lists, strings = found.loops_over_content, found.tests_for_string or not found.loops_over_content
    if content_format != "auto":
        lists, strings = content_format == "openai", content_format == "string"
    return Form(lists=lists, strings=strings, developer=found.knows_developer)


TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {"name": "f", "description": "f", "parameters": {"type": "object", "properties": {}}},
}
"""A tool to try a template with."""

_CALL: Sequence[Mapping[str, Any]] = (
    {"role": "user", "content": "Hello"},
    # Mistral's templates want ids of nine characters.
    {"role": "assistant", "tool_calls": [{"id": "abcdefghi", "function": {"name": "called"}}]},
    {"role": "tool", "tool_call_id": "abcdefghi", "content": "Hello"},
)


def _with_calls(source: Source) -> Source:
    """The same in the form in which it shows a tool call of an assistant who said nothing.

    Where there is no content, some templates fail, write ``None``, or show no call; where it is empty, others
    show an empty answer beside the call. DeepSeek's own join the arguments to text. So it is tried out.
    """
    forms = (
        replace(source.form, arguments_as_text=as_text, silence=silence)
        for as_text in (False, True)
        for silence in get_args(Silence)
    )
    sources = (Source(source.template, form) for form in forms)
    return next((each for each in sources if _shows_calls(each)), source)


def _hears_system(source: Source) -> bool:
    messages = [{"role": "system", "content": "hear me"}, {"role": "user", "content": "Hello"}]
    try:
        return "hear me" in source.try_out(messages, None)
    except FAILURES:
        return False


def _shows_calls(source: Source) -> bool:
    try:
        text = source.try_out(_CALL, [TOOL])
    except FAILURES:
        return False
    return "called" in text and "None" not in text
