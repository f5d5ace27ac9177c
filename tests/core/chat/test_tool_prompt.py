"""Tools, calls and results as text, where a template does not render them."""

from __future__ import annotations

from typing import Any

import pytest

from fllm.chat import CallFormat, ChatTemplate

LIST = CallFormat(
    before="[", begin='{"name": "', middle='", "parameters": ', end="}", between=", ", after="]"
)
TAGS = CallFormat(
    before="", begin='<call>{"name": "', middle='", "arguments": ', end="}</call>", between="\n", after=""
)
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + PLAIN
WITH_TOOLS = "{{ tools | length if tools }}" + PLAIN
WITH_CALLS = WITH_TOOLS + "{{ messages[1].tool_calls[0].function.name }}"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
HELLO = {"role": "user", "content": "Hello"}


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


HISTORY: list[dict[str, Any]] = [
    HELLO,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [call("1", "f", '{"ä": 1}'), call("2", "g", "{}")],
    },
    result("1", "one"),
    result("2", [{"type": "text", "text": "two"}]),
    {"role": "assistant", "content": "Both."},
    {"role": "user", "content": "Thanks"},
]


def render(source: str, messages: Any, **options: Any) -> str:
    template = ChatTemplate.compile({"default": source}, special_tokens={})
    return template.render(messages, inject_tools=True, **{"call_format": LIST, **options})


@pytest.mark.parametrize("source", [PLAIN, NO_SYSTEM])
def test_without_support_for_tools_calls_and_results_are_text_and_roles_alternate(source: str) -> None:
    assert render(source, HISTORY) == (
        '[user]Hello[assistant][{"name": "f", "parameters": {"ä": 1}}, {"name": "g", "parameters": {}}]'
        "[user]The function f returned: one\n\nThe function g returned: two[assistant]Both.[user]Thanks"
    )


def test_the_text_of_a_call_follows_the_content_and_has_the_given_format() -> None:
    messages = [HELLO, {**HISTORY[1], "content": "Wait."}]
    assert render(PLAIN, messages, call_format=TAGS).endswith(
        '[assistant]Wait.\n\n<call>{"name": "f", "arguments": {"ä": 1}}</call>\n'
        '<call>{"name": "g", "arguments": {}}</call>'
    )


def test_a_template_with_tools_keeps_the_role_of_results() -> None:
    assert "[tool]one[tool]two[assistant]Both." in render(WITH_TOOLS, HISTORY)


def test_calls_that_the_template_renders_are_no_text() -> None:
    text = render(WITH_CALLS, HISTORY)
    assert text.startswith("[user]Hello[assistant][tool]one")
    assert text.endswith("f")


def test_a_result_without_a_call_stays_as_it_is() -> None:
    assert render(PLAIN, [HELLO, result("9", "nine")]) == "[user]Hello[tool]nine"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (PLAIN, "[system]These functions are available:\n{tool}\n\n{how}[user]Hello"),
        (NO_SYSTEM, "[user]These functions are available:\n{tool}\n\n{how}\n\nHello"),
        (WITH_TOOLS, "1[user]Hello\n\n{how}"),
    ],
)
def test_the_format_is_explained(source: str, text: str) -> None:
    tool = '{"name": "f", "parameters": {"type": "object"}}'
    expected = text.replace("{tool}", tool).replace("{how}", LIST.instructions())
    assert render(source, [HELLO], tools=TOOLS, explain_calls=True) == expected
    assert LIST.instructions() not in render(source, [HELLO], tools=TOOLS)
    assert render(source, [HELLO], explain_calls=True) == "[user]Hello"


def test_tools_are_listed_in_their_own_characters() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "날씨"}}
    assert '{"name": "f", "description": "날씨"}' in render(PLAIN, [HELLO], tools=[tool])
