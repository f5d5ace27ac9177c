"""The body of a request becomes a chat request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fllm import (
    ChatMessage,
    ChatRequest,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    RequestError,
    TextFormat,
)
from fllm_dialects.field_names import renamed
from fllm_dialects.responses.protocol.items import InputItem
from fllm_dialects.responses.protocol.requests import ResponsesRequest
from fllm_dialects.responses.reader import ReadRequest, read_request

TOOL = {"type": "function", "name": "f"}


def read(**body: Any) -> ReadRequest:
    """Return a request as it is read; its input is "q" unless given."""
    return read_request(msgspec.convert({"input": "q"} | body, ResponsesRequest))


def chat(**body: Any) -> ChatRequest:
    """Return the chat request of a body."""
    return read(**body).chat


def test_a_text_is_a_message_of_the_user() -> None:
    assert chat() == ChatRequest(
        messages=[ChatMessage(role="user", content="q")],
        add_generation_prompt=True,
        continue_final_message=False,
    )


def test_instructions_and_earlier_items_precede_the_input() -> None:
    body = ResponsesRequest(input="q", instructions="Be brief.")
    request = read_request(body, earlier=[InputItem(role="user", content="first")])
    assert [(m.role, m.content) for m in request.chat.messages] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("user", "q"),
    ]
    names = request.field_names
    assert [names[f"messages[{i}]"] for i in range(3)] == ["instructions", "input", "input"]


def test_fields_of_sampling_are_passed_on() -> None:
    result = chat(
        model="m",
        max_output_tokens=5,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=7,
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        parallel_tool_calls=False,
        user="u",
        service_tier="auto",
        reasoning={"effort": "low", "summary": "auto"},
        chat_template_kwargs={"x": 1},
    )
    assert (result.model, result.max_completion_tokens, result.temperature) == ("m", 5, 0.5)
    assert (result.top_p, result.top_k, result.seed) == (0.9, 3, 7)
    assert (result.logprobs, result.top_logprobs, result.parallel_tool_calls) == (True, 2, False)
    assert (result.user, result.service_tier, result.reasoning_effort) == ("u", "auto", "low")
    assert result.chat_template_kwargs == {"x": 1}


@pytest.mark.parametrize(
    ("text_format", "expected"),
    [
        ({"type": "text"}, TextFormat()),
        ({"type": "json_object"}, JsonObjectFormat()),
        (
            {"type": "json_schema", "name": "n", "strict": True, "schema": {"type": "object"}},
            JsonSchemaFormat(json_schema=NamedSchema(schema={"type": "object"}, name="n")),
        ),
    ],
)
def test_the_format_of_the_text_is_passed_on(text_format: dict[str, Any], expected: object) -> None:
    assert chat(text={"format": text_format}).response_format == expected


def test_what_codex_sends_is_accepted() -> None:
    request = read(
        model="m",
        stream=True,
        input=[
            {
                "type": "message",
                "id": "msg_1",
                "role": "developer",
                "content": [{"type": "input_text", "text": "d"}],
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
        ],
        tools=[TOOL, {"type": "web_search", "external_web_access": True}],
        tool_choice="auto",
        parallel_tool_calls=True,
        reasoning={"summary": "auto"},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        client_metadata={"x": "y"},
    )
    assert [message.role for message in request.chat.messages] == ["developer", "user"]
    assert [tool.function.name for tool in request.chat.tools or ()] == ["f"]


def test_fields_without_a_value_are_accepted() -> None:
    names = [name for name in ResponsesRequest.__struct_fields__ if name != "input"]
    assert chat(**dict.fromkeys(names)) == chat()


@pytest.mark.parametrize("summary", ["auto", "concise", "detailed"])
def test_a_summary_can_be_requested(summary: str) -> None:
    """Agents request one from each model that reasons."""
    assert chat(reasoning={"summary": summary, "generate_summary": summary}) == chat()


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"input": None}, "input", "`input` is missing"),
        ({"input": []}, "input", "has no message"),
        ({"include": ["x"]}, "include[0]", "'x' is unknown"),
        ({"include": ["reasoning.encrypted_content"]}, "include", "only with `store`: false"),
        ({"top_logprobs": 2}, "top_logprobs", "requires `include`"),
        (
            {"stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "does not obfuscate",
        ),
        ({"prompt": {"id": "p"}}, "prompt", "stores no prompts"),
        ({"context_management": [{}]}, "context_management", "does not compact"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice", "no function tool 'f'"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id", "no stored item 'msg_1'"),
    ],
)
def test_what_the_server_does_not_do_is_refused(body: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read(**body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tools[0].function", "tools[0].tools[0]"),
        ("tools[1].function", "tools[1]"),
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format.json_schema.schema", "text.format.schema"),
    ],
)
def test_errors_about_the_chat_name_the_fields_of_the_request(path: str, expected: str) -> None:
    names = read(tools=[{"type": "namespace", "name": "n", "tools": [TOOL]}, TOOL]).field_names
    assert renamed(path, names) == expected


def test_errors_about_a_pattern_name_the_format_of_its_tool() -> None:
    digits = {"type": "grammar", "syntax": "regex", "definition": "[0-9]+"}
    names = read(tools=[TOOL, {"type": "custom", "name": "c", "format": digits}]).field_names
    assert renamed("tools[1].function.strict", names) == "tools[1].format"
    assert renamed("tools[1].function.name", names) == "tools[1].name"
    assert renamed("tools[0].function.strict", names) == "tools[0].strict"
