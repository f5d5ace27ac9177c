"""Small chat templates, one for each feature."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fllm.chat import ChatTemplate, ContentFormat
from fllm.errors import ConfigError, RequestError

HELLO = {"role": "user", "content": "Hello"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
LOOP = "{% for m in messages %}{% for part in m.content %}<{{ part.text }}>{% endfor %}{% endfor %}"
EITHER = (
    "{% for m in messages %}{% if m.content is string %}={{ m.content }}"
    "{% else %}{% for part in m.content %}<{{ part.text }}>{% endfor %}{% endif %}{% endfor %}"
)
PARTS = [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}]


def template(
    source: str | dict[str, str],
    content_format: ContentFormat = "auto",
    *,
    where: str = "chat.jinja",
    **special_tokens: str,
) -> ChatTemplate:
    sources = {"default": source} if isinstance(source, str) else source
    return ChatTemplate.compile(
        sources, content_format=content_format, special_tokens=special_tokens, where=where
    )


def message(content: Any = "Hello", role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def caller(arguments: object, content: object = None) -> dict[str, Any]:
    function = {"name": "f", "arguments": arguments}
    return message(content, "assistant", tool_calls=[{"id": "1", "type": "function", "function": function}])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ {'a': '<é&\\'>'} | tojson }}", '{"a": "<é&\'>"}'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}", '{\n "b": 1,\n "a": [\n  2\n ]\n}'),
        ("{{ {'b': 'é', 'a': 2} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":2,"b":"é"}'),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}"
         "{% if i == 2 %}{% break %}{% endif %}{% endfor %}", "02"),
        ("a\n  {% if true %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ("{% generation %}{% set x = 1 %}{{ messages[0].content }}{% endgeneration %}{{ x }}", "Hello"),
        ("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}", "True True True"),
        ("{{ bos_token }}{{ eos_token is defined }}", "<s>False"),
    ],
)  # fmt: skip
def test_templates_find_what_hugging_face_gives_them(source: str, expected: str) -> None:
    assert template(source, bos_token="<s>").render([HELLO]) == expected


def test_the_time_is_now() -> None:
    before = datetime.now().replace(microsecond=0)
    shown = datetime.fromisoformat(template("{{ strftime_now('%Y-%m-%dT%H:%M:%S') }}").render([HELLO]))
    assert before <= shown <= datetime.now()


def test_kwargs_are_variables_and_win_over_special_tokens() -> None:
    source = "{{ enable_thinking }} {{ documents[0].text }} {{ bos_token }}"
    kwargs = {"enable_thinking": False, "documents": [{"text": "d"}], "bos_token": "<b>"}
    assert template(source, bos_token="<s>").render([HELLO], kwargs=kwargs) == "False d <b>"


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "continue_final_message"])
def test_kwargs_may_not_be_fields_of_the_request(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        template(PLAIN).render([HELLO], kwargs={name: []})
    assert caught.value.param == f"chat_template_kwargs.{name}"


def test_tools_reach_the_template_as_they_were_sent() -> None:
    chat = template("{{ tools | tojson }}")
    assert chat.render([HELLO], tools=TOOLS) == (
        '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
    )
    assert chat.render([HELLO], tools=[]) == "null"


def test_tool_use_is_for_requests_with_tools() -> None:
    chat = template({"default": "plain", "tool_use": "tools", "rag": "rag"})
    assert (chat.render([HELLO]), chat.render([HELLO], tools=TOOLS)) == ("plain", "tools")
    assert template("plain").render([HELLO], tools=TOOLS) == "plain"


def test_without_a_default_the_error_lists_the_templates() -> None:
    chat = template({"rag": "rag", "tool_use": "tools"})
    assert chat.render([HELLO], tools=TOOLS) == "tools"
    with pytest.raises(RequestError, match=r"there are: rag, tool_use.*--chat-template"):
        chat.render([HELLO])
    with pytest.raises(ConfigError, match=r"chat\.jinja: there is no default chat template"):
        chat.check()


@pytest.mark.parametrize(
    ("source", "line"),
    [("{% for m in %}", 1), ("a\n{{ x | nonsense }}", 2), ("\n\n{% generation %}", 3), ("{% endif %}", 1)],
)
def test_a_syntax_error_is_reported_with_its_line(source: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"^mine\.jinja, line {line}: [^\n]+$"):
        template(source, where="mine.jinja")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ raise_exception('no\nthanks') }}", "rejects the conversation: no thanks"),
        ("{{ nobody.name }}", "fails on the conversation: 'nobody' is undefined"),
        ("{{ 'a' + 1 }}", "fails on the conversation: can only concatenate str"),
        ("{{ 1 // 0 }}", "fails on the conversation: integer division or modulo by zero"),
        ("{{ 'x' in none }}", "fails on the conversation: "),
        ("{{ '%d' % 'x' }}", "fails on the conversation: "),
        ("{{ [].pop() }}", "fails on the conversation: "),
        ("{{ messages.append(1) }}", "fails on the conversation: "),
        ("{{ ''.__class__.__mro__ }}", "fails on the conversation: access to attribute '__class__'"),
        ("{{ range(10 ** 9) | list }}", "fails on the conversation: "),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on the conversation: "),
    ],
)
def test_an_error_inside_the_template_is_a_request_error(source: str, expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        template(source).render([HELLO])
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.param == "messages"


def test_a_conversation_has_messages() -> None:
    with pytest.raises(RequestError) as caught:
        template(PLAIN).render([])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{% for part in m.content %}{% endfor %}{% endfor %}",
        "{% for m in messages %}{% for part in m['content'] %}{% endfor %}{% endfor %}",
        "{% for m in messages %}{% for part in m.get('content', []) | list %}{% endfor %}{% endfor %}",
        "{% set c = messages[0].content %}{% set d = c %}{% for part in d %}{% endfor %}",
        "{% macro show(role, c) %}{% for part in c or [] %}{% endfor %}{% endmacro %}"
        "{{ show('user', messages[0].content) }}",
        "{% for part in (messages[0].content if messages else []) %}{% endfor %}",
    ],
)
def test_a_loop_over_content_is_given_lists(source: str) -> None:
    shown = "{{ messages[0].content | tojson }}{{ messages[1].content | tojson }}"
    assert template(source + shown).render([HELLO, message(PARTS)]) == (
        '[{"type": "text", "text": "Hello"}][{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]'
    )


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        "{% for m in messages %}{% for call in m.tool_calls or [] %}{% endfor %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% for word in m.content.split('x') %}{{ word }}{% endfor %}{% endfor %}",
        "{% for t in tools or [] %}{% for k in t.content_types %}{% endfor %}{% endfor %}"
        "{{ messages[0].content }}",
    ],
)
def test_other_templates_are_given_text(source: str) -> None:
    assert template(source).render([message(PARTS)]).endswith("a\nb")


def test_a_template_that_takes_both_gets_what_was_sent() -> None:
    chat = template(EITHER)
    assert chat.render([HELLO, message(PARTS), message(PARTS, "tool")]) == "=Hello<a><b>=a\nb"


@pytest.mark.parametrize(
    ("source", "content_format", "expected"),
    [
        (EITHER, "openai", "<Hello><a><b>"),
        (EITHER, "string", "=Hello=a\nb"),
        (LOOP, "string", "<><><><><><><><>"),
        ("{% for m in messages %}{{ m.content[0].text }}{% endfor %}", "openai", "Helloa"),
    ],
)
def test_a_forced_format_is_obeyed(source: str, content_format: ContentFormat, expected: str) -> None:
    assert template(source, content_format).render([HELLO, message(PARTS)]) == expected


@pytest.mark.parametrize("content_format", ["string", "openai"])
@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "x"}}, "messages[1].content[0].type"),
        ({"type": "text"}, "messages[1].content[0]"),
        ("text", "messages[1].content[0]"),
    ],
)
def test_only_text_parts_are_taken(content_format: ContentFormat, part: object, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        template(PLAIN, content_format).render([HELLO, message([part])])
    assert caught.value.param == param


def test_developer_becomes_system_unless_the_template_mentions_it() -> None:
    developer = message("D", "developer")
    assert template(PLAIN).render([developer]) == "[system]D"
    knows = "{% if messages[0].role in ['system', 'developer'] %}" + PLAIN + "{% endif %}"
    assert template(knows).render([developer]) == "[developer]D"


def test_null_fields_and_empty_lists_of_calls_are_absent() -> None:
    source = "{{ messages[0] | tojson(sort_keys=true) }}"
    sent = message(None, "assistant", name=None, refusal=None, tool_calls=[], reasoning_content=None)
    assert template(source).render([sent]) == '{"content": "", "role": "assistant"}'


def test_the_messages_of_the_client_stay_as_they_are() -> None:
    sent = [message(PARTS), caller("{}"), message("end", "assistant", name=None)]
    before = repr(sent)
    template(EITHER).render(sent, add_generation_prompt=False, continue_final_message=True)
    assert repr(sent) == before


def test_reasoning_is_passed_under_all_names_that_templates_use() -> None:
    source = "{{ messages[0].reasoning_content }} {{ messages[0].thinking }}"
    assert template(source).render([message(reasoning="r")]) == "r r"
    assert template(source).render([message(reasoning_content="r")]) == "r r"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": [1.0, "é\\n😀"], "b": null}', '{"a": [1.0, "é\\n😀"], "b": null}'),
        ("", "{}"),
        (" \n", "{}"),
        (None, "{}"),
        ({"a": 1}, '{"a": 1}'),
        ('{"n": 123456789012345678901234567890}', '{"n": 123456789012345678901234567890}'),
    ],
)
def test_arguments_of_calls_become_objects(arguments: object, expected: str) -> None:
    chat = template("{{ messages[0].tool_calls[0].function.arguments | tojson }}")
    assert chat.render([caller(arguments)]) == expected


@pytest.mark.parametrize("arguments", ["{", "[1]", "3", '"{}"', '{"a": 1} x', [1]])
def test_arguments_that_are_not_an_object_are_reported(arguments: object) -> None:
    with pytest.raises(RequestError) as caught:
        template(PLAIN).render([HELLO, HELLO, caller(arguments)])
    assert caught.value.param == "messages[2].tool_calls[0].function.arguments"


def test_a_call_without_a_function_is_reported() -> None:
    with pytest.raises(RequestError) as caught:
        template(PLAIN).render([message("", "assistant", tool_calls=[{"id": "1"}])])
    assert caught.value.param == "messages[0].tool_calls[0].function"


CALLS = "{% for c in m.tool_calls or [] %}!{{ c.function.name }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("content", [None, "", []])
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for m in messages %}{{ 'no' if 'content' not in m }}" + CALLS, "no!f"),
        (
            "{% for m in messages %}{{ 'null' if m['content'] is none else m['content'] + '' }}" + CALLS,
            "null!f",
        ),
        ("{% for m in messages %}{{ '-' + m.content }}" + CALLS, "-!f"),
        ("{% for m in messages %}{{ m.content | string | length }}" + CALLS, "0!f"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", '[{"name": "f", "parameters": {}}]'),
    ],
)
def test_a_call_without_text_takes_the_format_that_the_template_can_render(
    source: str, expected: str, content: object
) -> None:
    assert template(source).render([caller("{}", content)]) == expected


def test_arguments_stay_text_where_the_template_joins_them_to_text() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name + c.function.arguments }}"
    )
    source += "{% endfor %}{% endfor %}"
    assert template(source).render([caller('{"a":  1}')]) == 'f{"a":  1}'
    assert template(source).render([caller("")]) == "f{}"


CONTINUE: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</end>\n{% endfor %}"


@pytest.mark.parametrize(
    ("source", "content", "expected"),
    [
        (TURNS, "Once upon ", "<user>Hello</end>\n<assistant>Once upon "),
        (TURNS, " a\n", "<user>Hello</end>\n<assistant> a\n"),
        (TURNS, "", "<user>Hello</end>\n<assistant>"),
        (
            TURNS.replace("m.content", "m.content | trim"),
            " Once upon ",
            "<user>Hello</end>\n<assistant>Once upon",
        ),
        (LOOP, [{"type": "text", "text": "a"}, {"type": "text", "text": "b "}], "<Hello><a><b "),
        (LOOP, "b", "<Hello><b"),
    ],
)
def test_continuing_ends_where_the_final_content_ends(source: str, content: object, expected: str) -> None:
    assert template(source).render([HELLO, message(content, "assistant")], **CONTINUE) == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ue0f7\ue0f8")))
def test_continuing_keeps_any_content(content: str) -> None:
    assert template(TURNS).render([message(content, "assistant")], **CONTINUE) == "<assistant>" + content


@pytest.mark.parametrize(
    ("source", "final", "options", "param"),
    [
        (TURNS, message("a"), {"continue_final_message": True}, "continue_final_message"),
        (TURNS, message(None, "assistant"), CONTINUE, "messages[1].content"),
        (LOOP, message([], "assistant"), CONTINUE, "messages[1].content"),
        ("{% for m in messages %}{{ m.content }}" + CALLS, caller("{}", ""), CONTINUE, "messages[1].content"),
        ("hidden", message("a"), CONTINUE, "continue_final_message"),
        (TURNS.replace("m.content", "m.content[2:]"), message("abc"), CONTINUE, "continue_final_message"),
    ],
)
def test_what_can_not_be_continued_is_rejected(
    source: str, final: dict[str, Any], options: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        template(source).render([HELLO, final], **options)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        "{{ bos_token + messages[0]['content'] + eos_token }}",
        "{{ raise_exception('never') }}",
        "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}",
        "",
    ],
)
def test_check_accepts_what_may_work(source: str) -> None:
    template(source).check()


@pytest.mark.parametrize("source", ["{{ nobody.name }}", "{{ messages[5].content }}", "{{ 1 / 0 }}"])
def test_check_reports_what_never_works(source: str) -> None:
    with pytest.raises(ConfigError, match=r"^chat\.jinja can't render a simple message: [^\n]+$"):
        template(source).check()


def test_neither_jinja_nor_tokenizers_is_imported_with_the_core() -> None:
    script = "import sys, fllm; sys.exit(not {'jinja2', 'tokenizers'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


SYSTEM = {"role": "system", "content": "Be brief."}
LIST = 'These functions are available:\n{"name": "f", "parameters": {"type": "object"}}'
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + PLAIN


@pytest.mark.parametrize(
    ("source", "messages", "text"),
    [
        (PLAIN, [HELLO], f"[system]{LIST}[user]Hello"),
        (PLAIN, [SYSTEM, HELLO], f"[system]Be brief.\n\n{LIST}[user]Hello"),
        (LOOP, [SYSTEM, HELLO], f"<Be brief.><{LIST}><Hello>"),
        (EITHER, [{**SYSTEM, "content": PARTS}, HELLO], f"<a><b><{LIST}>=Hello"),
        (NO_SYSTEM, [HELLO, HELLO], f"[user]{LIST}\n\nHello[user]Hello"),
        (NO_SYSTEM, [{"role": "assistant", "content": "Hi"}], "[assistant]Hi"),
        (
            PLAIN + "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}",
            [HELLO],
            "[user]Hellof",
        ),
    ],
)
def test_tools_that_a_template_does_not_render_are_injected(source: str, messages: Any, text: str) -> None:
    ours = template(source)
    assert ours.render(messages, tools=TOOLS, inject_tools=True) == text
    assert ours.render(messages, inject_tools=True) == ours.render(messages)
