"""A Messages request is read as the chat request that a client of Chat would send."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fllm import RequestError
from fllm.concurrency.turn_executor import run_at_once
from fllm_dialects.field_names import renamed
from fllm_dialects.messages.protocol import MessagesRequest
from fllm_dialects.messages.reader import ReadRequest, read_request

CACHED = {"cache_control": {"type": "ephemeral"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def read(**fields: Any) -> ReadRequest:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return run_at_once(read_request(msgspec.convert(body, MessagesRequest)))


def chat(**fields: Any) -> dict[str, Any]:
    """Return what a request is read as, without the fields that are not set."""
    values = msgspec.to_builtins(read(**fields).chat)
    return _given(values)


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _given(each) for key, each in value.items() if each is not None}
    return [_given(each) for each in value] if isinstance(value, list) else value


def messages(*given: tuple[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """Return the messages of the chat for messages with these roles and contents."""
    body = [{"role": role, "content": content} for role, content in given]
    found: list[dict[str, Any]] = chat(messages=body, **fields)["messages"]
    return found


def text(value: str, **others: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **others}


def call(name: str, use_id: str = "toolu_1", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": use_id, "name": name, "input": arguments, **CACHED}


def result(content: Any, use_id: str = "toolu_1", **others: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": use_id, "content": content, **others}


def image(**source: str) -> dict[str, Any]:
    return {"type": "image", "source": source, **CACHED}


def document(**source: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, "title": "Notes", "context": "Mine."}


PNG = image(type="base64", media_type="image/png", data="AAAA")
PNG_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_a_text_is_a_text() -> None:
    assert chat() == {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("Be brief.", "Be brief."),
        ([text("Be brief.", **CACHED)], "Be brief."),
        ([text("A"), text(""), text("B")], [text("A"), text("B")]),
        ([text("x-anthropic-billing-header: cc_version=2.1;"), text("B")], "B"),
        ("x-anthropic-billing-header: cc_version=2.1;\nB\nC", "B\nC"),
    ],
)
def test_the_system_prompt_is_the_first_message(system: Any, content: Any) -> None:
    assert messages(("user", "hi"), system=system)[0] == {"role": "system", "content": content}


@pytest.mark.parametrize("system", [None, "", [], [text("")]])
def test_an_empty_system_prompt_is_none(system: Any) -> None:
    assert messages(("user", "hi"), system=system) == [{"role": "user", "content": "hi"}]


def test_a_system_message_may_stand_among_the_others() -> None:
    found = messages(("user", "hi"), ("system", "Be brief."), ("user", [text("well?")]))
    assert [each["role"] for each in found] == ["user", "system", "user"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([text("a")], "a"),
        ([text("a", **CACHED, citations=None), text("b ☀")], [text("a"), text("b ☀")]),
        ([], ""),
        ([text("")], ""),
        ([text(""), PNG], [PNG_PART]),
        ([text("a"), PNG], [text("a"), PNG_PART]),
        (
            [image(type="url", url="https://x.org/a.png")],
            [{"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}],
        ),
        ([document(type="text", data="Buy milk.", media_type="text/plain")], "Notes\nMine.\n\nBuy milk."),
        ([document(type="content", content="Buy milk.")], [text("Notes\nMine."), text("Buy milk.")]),
        (
            [document(type="content", content=[text("Buy milk."), PNG])],
            [text("Notes\nMine."), text("Buy milk."), PNG_PART],
        ),
        (
            [{"type": "search_result", "title": "T", "source": "s", "content": [text("a"), text("b")]}],
            "T\ns\n\na\n\nb",
        ),
    ],
)
def test_the_users_blocks_are_parts(content: Any, expected: Any) -> None:
    assert messages(("user", content)) == [{"role": "user", "content": expected}]


def test_neighbours_of_one_role_are_one_turn() -> None:
    found = messages(("user", "a"), ("user", [text("b")]), ("assistant", "c"), ("assistant", [call("f")]))
    assert found == [
        {"role": "user", "content": [text("a"), text("b")]},
        {
            "role": "assistant",
            "content": "c",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
    ]


def test_thinking_and_calls_belong_to_the_assistants_message() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "any"},
        {"type": "redacted_thinking", "data": "xyz"},
        text("Let me look."),
        call("read", path="ä", n=2**70),
        {"type": "thinking", "thinking": "Well.", "signature": ""},
        call("read", "other", path=""),
    ]
    [_, found] = messages(("user", "hi"), ("assistant", blocks))
    assert found["reasoning_content"] == "Hm.\n\nWell."
    assert found["content"] == "Let me look."
    assert [(each["id"], each["function"]["arguments"]) for each in found["tool_calls"]] == [
        ("call_1", f'{{"path":"ä","n":{2**70}}}'),
        ("other", '{"path":""}'),
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (result("ok"), "ok"),
        ({"type": "tool_result", "tool_use_id": "toolu_1"}, ""),
        (result([]), ""),
        (result([text("a", **CACHED), text("b")]), [text("a"), text("b")]),
        (result([text("a"), PNG]), [text("a"), PNG_PART]),
        (result([{"type": "tool_reference", "tool_name": "read"}]), "read"),
        (result("no such file", is_error=True), "Error: no such file"),
        (result("<tool_use_error>x</tool_use_error>", is_error=True), "<tool_use_error>x</tool_use_error>"),
        (result("", is_error=True), "Error"),
        (result([PNG], is_error=True), [text("Error"), PNG_PART]),
        (result("error", is_error=False), "error"),
    ],
)
def test_a_result_is_a_message_of_the_tool(given: Any, expected: Any) -> None:
    [_, _, found] = messages(("user", "hi"), ("assistant", [call("f")]), ("user", [given]))
    assert found == {"role": "tool", "tool_call_id": "call_1", "content": expected}


def test_results_come_before_the_rest_of_their_turn() -> None:
    found = messages(
        ("user", [text("a"), result("1", "x"), text("b")]), ("user", [result("2", "y"), text("c")])
    )
    assert [(each["role"], each.get("tool_call_id")) for each in found] == [
        ("tool", "x"),
        ("tool", "y"),
        ("user", None),
    ]
    assert found[-1]["content"] == [text("a"), text("b"), text("c")]


def test_a_tool_is_a_function() -> None:
    tools = [
        {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True, **CACHED},
        {"type": "custom", "name": "g", "input_schema": {}, "defer_loading": True},
    ]
    assert chat(tools=tools)["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
        },
        {"type": "function", "function": {"name": "g", "parameters": {}}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        ({"type": "auto"}, "auto", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "none"}, "none", True),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}, True),
    ],
)
def test_the_choice_of_tools(choice: Any, expected: Any, parallel: bool) -> None:
    found = chat(tool_choice=choice)
    assert (found["tool_choice"], found["parallel_tool_calls"]) == (expected, parallel)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"thinking": {"type": "disabled"}}, {"enable_thinking": False, "include_reasoning": False}),
        ({"thinking": {"type": "adaptive"}}, {"enable_thinking": True, "include_reasoning": True}),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}},
            {
                "enable_thinking": True,
                "include_reasoning": False,
                "chat_template_kwargs": {"thinking_budget": 1024},
            },
        ),
        ({"output_config": {"effort": "xhigh"}}, {"reasoning_effort": "xhigh"}),
        ({"output_config": {"effort": None}}, {}),
    ],
)
def test_thinking_controls_the_reasoning(fields: Any, expected: Any) -> None:
    found = chat(**fields)
    assert {key: found[key] for key in found if key not in ("model", "max_tokens", "messages")} == expected


@pytest.mark.parametrize("place", ["output_format", "output_config"])
def test_a_schema_of_the_output_has_two_places(place: str) -> None:
    output = {"type": "json_schema", "schema": SCHEMA}
    found = chat(**{place: output if place == "output_format" else {"format": output}})
    assert found["response_format"] == output


def test_sampling_fields_keep_their_meaning() -> None:
    fields = {"temperature": 0, "top_p": 0.5, "top_k": 3, "stream": True}
    found = chat(stop_sequences=["a", "b"], **fields)
    assert found["stop"] == ["a", "b"]
    assert {name: found[name] for name in fields} == fields
    assert chat(top_p=0)["top_p"] == 1e-9


def test_without_output_the_prompt_is_computed_with_one_token() -> None:
    assert chat(max_tokens=0)["max_tokens"] == 1


def test_what_has_no_effect_is_accepted() -> None:
    fields = {
        "metadata": {"user_id": "x"},
        "service_tier": "auto",
        "inference_geo": "us",
        "speed": "fast",
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "mcp_servers": [],
        "container": None,
        "betas": ["x"],
        **CACHED,
    }
    assert chat(**fields) == chat()


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"mcp_servers": [{"type": "url", "url": "u", "name": "n"}]}, "mcp_servers", "calls no MCP servers"),
        ({"container": "c"}, "container", "runs no code"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages", "nothing but an empty system"),
        ({"thread": {"type": "create"}}, "thread", "keeps no conversations"),
        ({"compaction": {"type": "x"}}, "compaction", "does not summarize"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type", "web_search_2"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, "tools[0].type", "mcp_toolset"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "missing"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "missing"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "missing"),
    ],
)
def test_what_can_not_be_honoured_is_refused(fields: Any, param: str, words: str) -> None:
    with pytest.raises(RequestError, match=words) as caught:
        read(**fields)
    assert caught.value.param == param
    assert param in str(caught.value)


@pytest.mark.parametrize(
    ("role", "block", "param"),
    [
        ("user", call("f"), "messages[1].content[1].type"),
        ("assistant", result("x"), "messages[1].content[1].type"),
        ("assistant", PNG, "messages[1].content[1].type"),
        ("user", image(type="file", file_id="f"), "messages[1].content[1].source"),
        (
            "user",
            document(type="base64", media_type="application/pdf", data=""),
            "messages[1].content[1].source",
        ),
        (
            "user",
            document(type="text", data="x") | {"citations": {"enabled": True}},
            "messages[1].content[1].citations",
        ),
        (
            "user",
            result([image(type="file", file_id="f")]),
            "messages[1].content[1].content[0].source",
        ),
    ],
)
def test_a_block_in_the_wrong_place_is_refused(role: str, block: Any, param: str) -> None:
    body = [{"role": "system", "content": "x"}, {"role": role, "content": [text("a"), block]}]
    with pytest.raises(RequestError) as caught:
        read(messages=body)
    assert caught.value.param == param


def test_the_paths_of_a_chat_lead_back_to_the_request() -> None:
    found = read(
        system="s",
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [text(""), call("f")]},
            {"role": "user", "content": [result([text("r"), PNG]), text("b"), PNG]},
        ],
        tools=[{"name": "f", "input_schema": SCHEMA}],
    )
    assert [each.role for each in found.chat.messages] == ["system", "user", "assistant", "tool", "user"]
    expected = {
        "messages[0].content": "system",
        "messages[1].content": "messages[0].content",
        "messages[2].tool_calls[0].function.arguments": "messages[1].content[1].input",
        "messages[3].content[1].image_url": "messages[2].content[0].content[1].source",
        "messages[4].content[0].type": "messages[2].content[1].type",
        "messages[4].content[1].image_url": "messages[2].content[2].source",
        "messages[4].role": "messages[2].role",
        "tools[0].function.strict": "tools[0].strict",
        "stop": "stop_sequences",
        "max_tokens": "max_tokens",
        "response_format": "output_config.format.schema",
    }
    assert {path: renamed(path, found.names) for path in expected} == expected
