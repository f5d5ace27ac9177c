"""Conversations that a template can't express are adapted: each of them renders, and nothing is lost."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.histories import is_whole
from support.paths import SHARED
from support.random_histories import histories
from support.strict_templates import TEMPLATES

from fllm.chat import ChatTemplate
from fllm.errors import RequestError
from fllm.requests.chat import ChatMessage
from fllm_api.intake.history import template_messages

Message = dict[str, Any]
FAMILIES = {file.stem: file.read_text() for file in sorted((SHARED / "templates").glob("*.jinja"))}
SOURCES = {**TEMPLATES, **FAMILIES}
TOOLS_ONLY = "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"
every_template = pytest.mark.parametrize("name", SOURCES)


@cache
def compiled(name: str) -> ChatTemplate:
    return ChatTemplate.compile({"default": SOURCES[name]}, special_tokens={"bos_token": "", "eos_token": ""})


def as_read(messages: list[Message]) -> list[Message]:
    return template_messages(msgspec.convert(messages, list[ChatMessage]))


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str | None, *calls: Message, **fields: Any) -> Message:
    return {"role": "assistant", "content": content, **({"tool_calls": [*calls]} if calls else {}), **fields}


def system(content: str, role: str = "system") -> Message:
    return {"role": role, "content": content}


def call(name: str, call_id: str | None = "call_0123456789") -> Message:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": f'{{"x": "{name}-x"}}'},
    }


def result(content: str, call_id: str | None = "call_0123456789", **fields: Any) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **fields}


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("fun", "gun")
]
HISTORIES: dict[str, list[Message]] = {
    "one system message": [system("s1"), user("u1")],
    "two system messages": [system("s1"), system("s2"), user("u1")],
    "system and developer": [system("s1"), system("s2", "developer"), user("u1")],
    "a late system message": [system("s1"), user("u1"), assistant("a1"), system("s2"), user("u2")],
    "a system message at the end": [user("u1"), assistant("a1"), user("u2"), system("s2")],
    "nothing but a system message": [system("s1")],
    "three of the user": [user("u1"), user("u2"), user("u3"), assistant("a1"), user("u4")],
    "two of the assistant": [user("u1"), assistant("a1"), assistant("a2"), user("u2")],
    "the assistant first": [system("s1"), assistant("a1"), user("u1")],
    "a prefill": [system("s1"), user("u1"), assistant("a1")],
    "two calls": [
        *[
            user("u1"),
            assistant(None, call("fun", "1"), call("gun", "2")),
            result("r1", "1"),
            result("r2", "2"),
        ],
        *[assistant("a1"), user("u2")],
    ],
    "two calls of one id": [
        *[user("u1"), assistant(None, call("fun"), call("gun")), result("r1"), result("r2"), user("u2")],
    ],
    "text, reasoning and a call": [
        *[system("s1"), user("u1"), assistant("t1", call("fun"), reasoning="why"), result("r1")],
    ],
    "text and a call, answered": [
        *[
            user("u1"),
            assistant("t1", call("fun"), reasoning="why"),
            result("r1"),
            assistant("a1"),
            user("u2"),
        ],
    ],
    "several calls in turn": [
        *[system("s1"), user("u1"), assistant("t1", call("fun")), result("r1"), assistant("", call("gun"))],
        *[result("r2"), assistant("a1"), user("u2"), assistant(None, call("fun")), result("r3")],
    ],
    "text next to each call": [
        *[user("u1"), assistant("t1", call("fun", "1")), result("r1", "1")],
        *[assistant("t2", call("gun", "2")), result("r2", "2"), assistant("a1"), user("u2")],
    ],
    "an interrupted call": [user("u1"), assistant(None, call("fun")), user("u2")],
    "an interrupted answer": [user("u1"), assistant(None, call("fun")), result("r1"), user("u2")],
    "a call at the end": [user("u1"), assistant("t1", call("fun"))],
    "a result without a call": [user("u1"), assistant("a1"), result("r1", "9"), user("u2")],
    "a result first": [result("r1", "9"), user("u1")],
    "a late result": [
        user("u1"),
        assistant("", call("fun")),
        user("u2"),
        result("r1"),
        assistant("a1"),
        user("u3"),
    ],
    "no ids": [
        user("u1"),
        assistant("", call("fun", None), call("gun", None)),
        result("r1", None),
        result("r2", None),
    ],
    "a legacy call": [
        user("u1"),
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "fun", "arguments": '{"x": "fun-x"}'},
        },
        {"role": "function", "name": "fun", "content": "r1"},
        *[assistant("a1"), user("u2")],
    ],
    "nothing said": [user("u1"), assistant(""), user("u2"), assistant(None), user("u3")],
}


def assert_whole(name: str, messages: list[Message], tools: list[Message] | None) -> None:
    if name == TOOLS_ONLY:
        tools = TOOLS
    read = as_read(messages)
    prompt = compiled(name).render(read, tools=tools)
    assert is_whole(prompt, read), prompt


@every_template
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["", "with tools"])
def test_every_history_is_in_the_prompt(name: str, tools: list[Message] | None) -> None:
    for messages in HISTORIES.values():
        assert_whole(name, messages, tools)


@every_template
@settings(deadline=None)  # the first example compiles the template
@given(messages=histories(), tools=st.sampled_from((None, TOOLS)))
def test_any_history_is_in_the_prompt(
    name: str, messages: list[Message], tools: list[Message] | None
) -> None:
    assert_whole(name, messages, tools)


@every_template
def test_a_final_message_of_the_assistant_can_be_continued(name: str) -> None:
    for messages in (
        [user("u1"), assistant("Well,")],
        [system("s1"), user("u1"), assistant("a1"), assistant("Well,")],
    ):
        prompt = compiled(name).render(
            as_read(messages),
            tools=TOOLS if name == TOOLS_ONLY else None,
            add_generation_prompt=False,
            continue_final_message=True,
        )
        assert prompt.endswith("Well,")


ADAPTED = {
    "anything": [],
    "one system message, first": ["system messages are joined into one at the beginning"],
    "last system message wins": ["system messages are joined into one at the beginning"],
    "no system message": ["system messages move into the first user message"],
    "one call": ["each of several tool calls gets a message of its own"],
    "only the first call": ["each of several tool calls gets a message of its own"],
    "calls without text": ["text next to a tool call gets a message of its own"],
    "no reasoning with text and calls": [
        "text next to a tool call gets a message of its own once there is an answer"
    ],
    "results only of calls": ["results of tools without a call become messages of the user"],
    "each call has a result": ["tool calls without a result get an empty one"],
    "results have a role of their own": ["results of tools get the role ipython"],
    "no calls": ["tool calls become text"],
    "begins with the user": ["an empty user message begins conversations without one"],
    "developer, not system": [],
    "ids of nine characters or more": ["ids of tool calls get the form of nine letters and digits"],
    "results only within a turn of the assistant": [
        "results of tools without a call become messages of the user"
    ],
    "alternating apart from tools, no empty answer": [
        "system messages move into the first user message",
        "messages of one role are merged, so that roles alternate",
        "empty messages of the assistant get a space",
    ],
    "a result has the name of its call": ["results of tools without a call become messages of the user"],
    "text next to the first call only": ["text next to a tool call gets a message of its own"],
    "a call at the end is lost": ["tool calls without a result get an empty one"],
    "one part of an answer": ["the parts of a message are joined, unless it is the user's"],
    "content as text, but calls in a loop over content": [],
}


@pytest.mark.parametrize("name", ADAPTED)
def test_only_what_is_needed_is_adapted(name: str) -> None:
    assert compiled(name).adaptations == ADAPTED[name]


def test_what_is_adapted_has_the_form_that_the_model_knows() -> None:
    def render(name: str, *messages: Message) -> str:
        return compiled(name).render(as_read([*messages]))

    systems = [system("s1"), system("s2", "developer"), user("u1"), assistant("a1"), system("s3"), user("u2")]
    assert (
        render("one system message, first", *systems) == "[system]s1\n\ns2\n\ns3[user]u1[assistant]a1[user]u2"
    )
    assert render("no system message", *systems) == "[user]s1\n\ns2\n\ns3\n\nu1[assistant]a1[user]u2"
    assert render("developer, not system", system("s1"), user("u1")) == "[developer]s1[user]u1"
    strict = "alternating, no system message, no tools"
    assert (
        render(strict, user("u1"), user("u2"), assistant("a1"), assistant("a2"))
        == "[user]u1\n\nu2[assistant]a1\n\na2"
    )
    assert render(strict, assistant("a1"), user("u1")) == "[user][assistant]a1[user]u1"
    calls = [
        user("u1"),
        assistant("t1", call("fun", "1"), call("gun", "2")),
        result("r2", "2"),
        result("r1", "1"),
    ]
    assert render("one call", *calls) == (
        '[user]u1[assistant]t1(call fun {"x": "fun-x"})[tool]r1[assistant](call gun {"x": "gun-x"})[tool]r2'
    )
    assert render(strict, *calls) == (
        '[user]u1[assistant]t1\n\n[{"name": "fun", "parameters": {"x": "fun-x"}}, '
        '{"name": "gun", "parameters": {"x": "gun-x"}}]'
        "[user]The function gun returned: r2\n\nThe function fun returned: r1"
    )
    assert (
        render("results only of calls", user("u1"), result("r1")) == "[user]u1[user]The function returned: r1"
    )
    interrupted = [
        user("u1"),
        assistant(None, call("fun")),
        result("r1"),
        user("u2"),
        assistant(""),
        user("u3"),
    ]
    assert render("alternating apart from tools, no empty answer", *interrupted) == (
        '[user]u1[assistant](call fun {"x": "fun-x"})[tool]r1[assistant] [user]u2[assistant] [user]u3'
    )


def test_the_ids_of_a_call_and_its_result_stay_the_same_id() -> None:
    prompt = compiled("alternating apart from tools, ids of nine characters").render(
        as_read(
            [
                user("u1"),
                assistant(None, call("fun")),
                result("r1"),
                assistant(None, call("gun", "abcDEF123")),
            ]
        )
    )
    called, answered = prompt.split("(call ")[1][:9], prompt.split("[tool ")[1][:9]
    assert called == answered
    assert called.isalnum()
    assert "(call abcDEF123 gun" in prompt


@pytest.mark.parametrize(
    ("name", "made"), [("alternating apart from tools, ids of nine characters", True), ("anything", False)]
)
def test_new_ids_have_the_form_that_the_template_demands(name: str, made: bool) -> None:
    factory = compiled(name).call_id_factory
    assert (factory is not None) == made
    if factory:
        ids = {factory() for _ in range(9)}
        assert len(ids) == 9
        assert all(len(each) == 9 and each.isalnum() for each in ids)


OWN_ROLES = "{% for m in messages %}{% if m.role in ['user', 'assistant', 'critic', 'hidden'] %}"
OWN_ROLES += "{% if m.role != 'hidden' %}[{{ m.role }}]{{ m.content }}{% endif %}{% endif %}{% endfor %}"


def test_roles_of_the_template_are_accepted_and_any_other_is_an_error() -> None:
    template = ChatTemplate.compile({"default": OWN_ROLES}, special_tokens={})
    assert template.render([user("u1"), system("c1", "critic")]) == "[user]u1[critic]c1"
    for role in ("hidden", "wizard", "environment"):
        with pytest.raises(RequestError, match=f"'{role}'.*assistant, critic, developer") as caught:
            template.render([user("u1"), system("c1", role)])
        assert caught.value.param == "messages[1].role"


def test_a_template_that_renders_any_role_has_the_usual_roles() -> None:
    template = compiled("no calls")
    assert template.render([user("u1"), system("e1", "environment")]) == "[user]u1[environment]e1"
    with pytest.raises(RequestError, match="'robot'"):
        template.render([user("u1"), system("e1", "robot")])


def test_a_template_that_does_not_render_conversations_is_left_alone() -> None:
    template = ChatTemplate.compile({"default": "{{ messages[-1].content }}"}, special_tokens={})
    assert template.adaptations == []
    assert template.render([system("s1"), user("u1"), user("u2")]) == "u2"


def test_an_error_names_the_message_that_the_client_sent() -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(RequestError) as caught:
        compiled("no system message").render([system("s1"), user("u1"), image])
    assert caught.value.param == "messages[2].content[0].type"


def test_a_long_history_is_adapted_in_linear_time() -> None:
    roles = [system("s"), user("u"), user("u"), assistant("a"), assistant("a")] * 4_000
    calls = assistant(None, *[call("fun", str(i)) for i in range(10_000)])
    read = as_read([*roles, calls, *[result("r", str(i)) for i in reversed(range(10_000))]])
    for name in ("alternating, no system message, no tools", "one call", "no calls and no results"):
        assert len(compiled(name)._templates["default"].rules.adapt(read)) > 1
