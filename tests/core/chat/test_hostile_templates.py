"""Untrusted templates: what they can't access, and which resources they can't exhaust."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from msgspec.structs import replace

import fllm
from fllm.chat import ChatTemplate, RequestTemplates, TemplateSettings
from fllm.chat.jinja_environment import jinja_environment
from fllm.chat.request_templates import MAX_TEMPLATE_CHARACTERS, RENDER_LIMITS
from fllm.errors import ConfigError, RequestError

USER = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
GOOD = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ tools if tools }}"
TAIL = "{% if add_generation_prompt %}<assistant>{% endif %}{{ note }}"

ESCAPES = {
    "classes of a string": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes by item": "{{ ''['__class__']['__mro__'] }}",
    "classes by filter": "{{ (''|attr('__class__'))|attr('__mro__') }}",
    "attr with a hidden name": "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f')|attr('\\x5f\\x5fbase\\x5f\\x5f') }}",
    "attr through map": "{{ ['']|map(attribute='__class__')|map(attribute='__mro__')|list }}",
    "attr through map's filter": "{{ ['']|map('attr', '__class__')|map('attr', '__mro__')|list }}",
    "attr through selectattr": "{{ ['']|selectattr('__class__.__mro__')|first }}",
    "attr through groupby": "{{ ['']|groupby('__class__.__mro__') }}",
    "attr through sort and sum": "{{ ['']|sort(attribute='__class__.__mro__')"
    "|sum(attribute='__class__.__mro__') }}",
    "format walks": "{{ '{0.__class__.__mro__}'.format('') }}",
    "format walks items": "{{ '{0[a].__class__.__mro__}'.format({'a': 1}) }}",
    "format_map walks": "{{ '{a.__class__.__mro__}'.format_map({'a': ''}) }}",
    "format taken off": "{% set f = '{0.__class__.__mro__}'.format %}{{ f('') }}",
    "format by filter": "{{ ('{0.__class__.__mro__}'|attr('format'))('') }}",
    "format through map": "{{ (['{0.__class__.__mro__}']|map('attr', 'format')|first)('') }}",
    "the joiner's globals": "{{ joiner.__init__.__globals__ }}",
    "the cycler's globals": "{{ cycler.__init__.__globals__['os'] }}",
    "the namespace's globals": "{{ namespace.__init__.__globals__ }}",
    "lipsum's globals": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "our function's globals": "{{ raise_exception.__globals__['json'] }}",
    "our clock's code": "{{ strftime_now.__code__.co_consts }}",
    "the template itself": "{{ self._TemplateReference__context }}",
    "the template's environment": "{{ self._TemplateReference__context.environment }}",
    "the context's": "{{ self.__init__.__globals__ }}",
    "a macro's": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}",
    "a macro's function": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "a macro's environment": "{% macro m() %}{% endmacro %}{{ m._environment.globals }}",
    "a caller's": "{% macro m() %}{{ caller._func.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}",
    "a loop's": "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "a loop's own": "{% for x in [1] %}{{ loop._iterator.gi_frame }}{% endfor %}",
    "a generator's frame": "{{ ([1]|map('string')).gi_frame.f_back.f_globals }}",
    "a generator's code": "{{ ([1]|select).gi_code.co_consts }}",
    "an async generator's": "{{ ([1]|map('string')).ag_frame }}",
    "a method's function": "{{ messages.append.__self__.__class__.__mro__ }}",
    "undefined's": "{{ nothing.__init__.__globals__ }}",
    "undefined's own": "{{ nothing._undefined_exception.__mro__ }}",
    "an exception's": "{{ raise_exception.__class__.__base__ }}",
    "other files": "{% include '/etc/passwd' %}",
    "macros of other files": "{% import '/etc/passwd' as p %}{{ p }}",
    "parents of other files": "{% extends '/etc/passwd' %}",
    "the messages themselves": "{{ messages.append(1) }}{{ messages|length }}",
    "the messages' own": "{{ messages[0].update({'role': 'x'}) }}",
    "globals by way of a dict": "{{ dict.__base__.__subclasses__() }}",
    "globals by way of range": "{{ range.__class__.mro(range) }}",
    "debug": "{% debug %}",
    "code": "{{ ''.join.__class__('x') }}{% do x %}",
}

VALUES = (
    *("'a <b>b</b> &amp; http://x.y'", "' '", "'1'", "3", "2.5", "true", "none", "[1, 2]", "['a', 'b']"),
    *("{'a': 'b'}", "messages", "messages[0].items()", "range(3)", "nothing", "cycler", "joiner()", "lipsum"),
    *("namespace(a=1)", "'x'.join", "self"),
)
ARGUMENTS = (
    "",
    "()",
    "(1)",
    "('a')",
    "('%Y')",
    "(2, 'a')",
    "('role', 'user')",
    "('a', 'b', 3)",
    "(item='a')",
)
STATEMENTS = {
    "for": "{% for x in range(9) recursive %}{{ loop.cycle(1, 2) }}{% else %}{% endfor %}",
    "loop controls": "{% for x in [1, 2] %}{% if x == 1 %}{% continue %}{% endif %}{% break %}{% endfor %}",
    "if": "{% if 1 is odd and 'a' in ['a'] %}{% elif 2 > 1 %}{% else %}{% endif %}",
    "macro": "{% macro m(a, b=1) %}{{ a ~ b ~ varargs ~ kwargs ~ caller() }}{% endmacro %}"
    "{% call m(1, 2, 3, c=4) %}x{% endcall %}",
    "filter": "{% filter upper %}a{% endfilter %}",
    "set": "{% set x %}a{% endset %}{% set n = namespace(a=1) %}{% set n.a, b = 1, 2 %}",
    "block": "{% block a %}{{ self.a }}{% endblock %}",
    "with": "{% with a=1 %}{{ a }}{% endwith %}",
    "raw": "{% raw %}{{ {% endraw %}",
    "generation": "{% generation %}a{% endgeneration %}",
    "include": "{% include 'a' ignore missing %}",
    "import": "{% from 'a' import b %}",
    "extends": "{% extends 'a' %}",
    "autoescape": "{% autoescape true %}{% endautoescape %}",
    "a name of Unicode": "{{ '\\N{EM DASH}\\u00e9' }}",
    "an encoding": "{{ 'é'.encode('utf-16') }}",
    "a rare encoding": "{{ 'é'.encode('koi8-r') }}",
    "an unknown encoding": "{{ 'é'.encode('nothing') }}",
    "an error handler": "{{ 'é'.encode('ascii', 'xmlcharrefreplace') }}",
    "a locale": "{{ '{:n} {:%}'.format(1234567, 0.5) ~ '%c'|format(65) }}",
    "methods": "{{ 'ﬁ'.casefold().title().isidentifier() ~ (3).to_bytes(2, 'big') ~ 2.5.hex() }}",
}
NO_LOADER = "the chat template fails on the conversation: no loader for this environment specified"
REJECTED = {
    **dict.fromkeys(("include", "import", "extends"), NO_LOADER),
    "a rare encoding": "the chat template fails: it needs a module of Python that templates can't use",
    "an unknown encoding": "the chat template fails on the conversation: unknown encoding: nothing",
}

BOMBS = {
    "a long range": "{% for x in range(10**12) %}{% endfor %}",
    "nested ranges": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a macro that calls itself": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "macros that double": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "a loop in itself": "{% for x in [[]] recursive %}{{ loop([x]) }}{{ loop([x]) }}{% endfor %}",
    "a long string": "{{ 'a' * 10**10 }}",
    "a string long enough": "{{ 'a' * 10**8 }}",
    "a long list": "{{ [0] * 10**10 }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "powers": "{{ (9 ** 999999) ** 999 }}",
    "center": "{{ 'a'|center(10**10) }}",
    "a method's padding": "{{ 'a'.ljust(10**10) }}",
    "zfill": "{{ '1'.zfill(10**10) }}",
    "replace that grows": "{% set n = namespace(s='a' * 99) %}{% for x in range(99) %}"
    "{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}",
    "replace as a filter": "{{ ('a' * 99999)|replace('a', 'a' * 99999) }}",
    "padding by %": "{{ '%9999999999d' % 1 }}",
    "padding by the filter": "{{ '%0999999999d'|format(1) }}",
    "padding by format": "{{ '{:>9999999999}'.format('a') }}",
    "padding by precision": "{{ '{:.999999999f}'.format(1.5) }}",
    "indent": "{{ ('a\\n' * 9999)|indent(9999999) }}",
    "indent by a text": "{{ ('a\\n' * 9999)|indent('a' * 99999) }}",
    "tojson's indent": "{{ [[[1] * 9999] * 9999]|tojson(indent=9999999) }}",
    "wordwrap": "{{ ('a ' * 99999)|wordwrap(1, wrapstring='b' * 99999) }}",
    "lipsum": "{{ lipsum(n=99999999) }}",
    "a slice": "{{ [1]|slice(10**10)|list }}",
    "a batch": "{{ [1]|batch(10**10, 'x')|list }}",
    "a cycle without end": "{% set c = cycler(1) %}{% for x in range(99999) %}{% for y in range(99999) %}"
    "{{ c.next() }}{% endfor %}{% endfor %}",
    "a text that doubles": "{% set n = namespace(s='aa') %}{% for x in range(60) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "a list that doubles": "{% set n = namespace(s=[1]) %}{% for x in range(60) %}"
    "{% set n.s = n.s + n.s %}{% endfor %}",
    "a list in itself": "{% set n = namespace(s=[1]) %}{% for x in range(9999) %}"
    "{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s }}",
    "permutations by join": "{{ (('a' * 99999)|list * 999)|join('b' * 999) }}",
    "a deep expression": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "deep loops": "{% for x in y %}" * 300 + "{% endfor %}" * 300,
    "deep lists": "{{ " + "[" * 9999 + "]" * 9999 + " }}",
    "a long chain": "{{ 1 " + "+ 1 " * 30000 + "}}",
    "a constant to be folded": "{{ 'a' * 99999 * 99999 }}",
    "pprint": "{{ [[[[1] * 99] * 99] * 99] * 99 | pprint }}",
}


@pytest.fixture(scope="module")
def request_templates() -> Iterator[RequestTemplates]:
    templates = RequestTemplates(
        TemplateSettings({"bos_token": "<s>"}, "auto"),
        replace(RENDER_LIMITS, cpu_seconds=0.3, memory=128 << 20),
    )
    yield templates
    templates.stop()


@pytest.mark.parametrize("what", ESCAPES)
def test_an_escape_is_rejected_or_renders_nothing(what: str) -> None:
    """Render in the server's process, since models bring untrusted templates too."""
    try:
        shown = ChatTemplate.compile({"default": ESCAPES[what]}, special_tokens={}).render(USER)
    except (ConfigError, RequestError):
        return
    assert shown.strip("[]'{}0.: ") in ("", "Undefined")


def test_a_template_can_not_change_its_messages() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hi", "extra": [1]}]
    for source in (
        ESCAPES["the messages themselves"],
        ESCAPES["the messages' own"],
        "{{ messages[0].extra.pop() }}",
    ):
        with pytest.raises(RequestError):
            ChatTemplate.compile({"default": source}, special_tokens={}).render(messages)
    assert messages == [{"role": "user", "content": "Hi", "extra": [1]}]


def outcome(templates: RequestTemplates, source: str) -> str:
    """Return ``""`` if a template is rendered, else the error, which must reveal nothing of the machine."""
    try:
        templates.template(source).render(USER)
    except RequestError as error:
        message, param = error.message, error.param
    else:
        return ""
    assert not [path for path in PRIVATE if path in message], (source, message)
    assert param == "chat_template"
    return message


PRIVATE = (
    *sorted({str(Path(module.__file__).parent) for module in (fllm, jinja2, json)}),
    "Errno",
    "Traceback",
)


@pytest.mark.parametrize("name", sorted(jinja_environment().filters))
def test_a_filter_works(name: str, request_templates: RequestTemplates) -> None:
    calls = (f"{{{{ {value}|{name}{arguments} }}}}" for value in VALUES for arguments in ARGUMENTS)
    assert "" in [outcome(request_templates, call) for call in calls]


@pytest.mark.parametrize("name", sorted(jinja_environment().tests))
def test_a_test_works(name: str, request_templates: RequestTemplates) -> None:
    calls = (
        f"{{{{ [{value}]|select('{name}'{argument})|list }}}}"
        for value in VALUES
        for argument in ("", ", 1", ", [1]")
    )
    assert "" in [outcome(request_templates, call) for call in calls]


@pytest.mark.parametrize("name", sorted({*jinja_environment().globals} - {"raise_exception"}))
def test_a_global_function_works(name: str, request_templates: RequestTemplates) -> None:
    calls = [f"{{{{ {name}({value}) }}}}" for value in ("", *VALUES)]
    assert "" in [outcome(request_templates, call) for call in calls]


@pytest.mark.parametrize("what", STATEMENTS)
def test_a_statement_works_or_is_rejected(what: str, request_templates: RequestTemplates) -> None:
    message = outcome(request_templates, STATEMENTS[what])
    assert message == REJECTED.get(what, "")


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_rejected_and_the_next_template_is_rendered(
    what: str, request_templates: RequestTemplates
) -> None:
    with pytest.raises(RequestError) as caught:
        request_templates.template(BOMBS[what]).render(USER)
    assert caught.value.param == "chat_template"
    assert len(caught.value.message) < 1000
    assert request_templates.template(GOOD).render(USER) == "<s><user>Hi"


def test_a_request_template_renders_as_the_models_own_would(request_templates: RequestTemplates) -> None:
    own = ChatTemplate.compile({"default": GOOD + TAIL}, special_tokens={"bos_token": "<s>"})
    other = request_templates.template(GOOD + TAIL)
    said = [*USER, {"role": "assistant", "content": "Hello, I "}]
    for messages, how in (
        (USER, {}),
        (USER, {"tools": TOOLS, "inject_tools": True}),
        (USER, {"kwargs": {"note": "!"}}),
        (said, {"add_generation_prompt": False, "continue_final_message": True}),
        ([{"role": "user", "content": [{"type": "text", "text": "part"}]}], {}),
    ):
        assert other.render(messages, **how) == own.render(messages, **how)


def test_tools_are_injected_where_a_request_template_does_not_render_them(
    request_templates: RequestTemplates,
) -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert '"name": "f"' in request_templates.template(source).render(USER, tools=TOOLS, inject_tools=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "line 1"),
        ("{{ raise_exception('not so') }}", "rejects the conversation: not so"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ '\\ud800' }}", "surrogates"),
        ("x" * (MAX_TEMPLATE_CHARACTERS + 1), "at most"),
        ("{{ 'x' * 9000000 }}", "produces 9000000 bytes"),
    ],
)
def test_an_error_in_a_template_is_attributed_to_the_template(
    source: str, message: str, request_templates: RequestTemplates
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        request_templates.template(source).render(USER)
    assert caught.value.param == "chat_template"


def test_an_error_in_the_messages_is_attributed_to_them(request_templates: RequestTemplates) -> None:
    with pytest.raises(RequestError) as caught:
        request_templates.template(GOOD).render([{"role": "user", "content": [{"type": "image_url"}]}])
    assert caught.value.param == "messages[0].content[0].type"
