"""Items become messages: one message for what the model generated in one turn."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fllm import ChatMessage, ContentPart, FunctionCall, ImageUrl, RequestError, ToolCall
from fllm_dialects.responses.conversation import Conversation, is_reference, resolve_references
from fllm_dialects.responses.protocol.items import InputItem


def items(*values: dict[str, Any]) -> list[InputItem]:
    """Return items as a client sends them."""
    return msgspec.convert(values, list[InputItem])


def conversation(*values: dict[str, Any]) -> Conversation:
    """Return a conversation of these items."""
    result = Conversation()
    result.add(items(*values))
    return result


def call(name: str, call_id: str, **fields: Any) -> dict[str, Any]:
    """Return a function call without arguments."""
    return {"type": "function_call", "name": name, "call_id": call_id, "arguments": "{}", **fields}


def test_messages_keep_their_roles_and_a_single_text_is_a_string() -> None:
    result = conversation(
        {"role": "system", "content": "a"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "b"}]},
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "c"}, {"type": "input_text", "text": "d"}],
        },
        {
            "role": "assistant",
            "id": "msg_1",
            "status": "completed",
            "content": [{"type": "output_text", "text": "e", "annotations": [], "logprobs": []}],
        },
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": []},
    )
    assert result.messages == [
        ChatMessage(role="system", content="a"),
        ChatMessage(role="developer", content="b"),
        ChatMessage(
            role="user", content=[ContentPart(type="text", text="c"), ContentPart(type="text", text="d")]
        ),
        ChatMessage(role="assistant", content="e"),
        ChatMessage(role="assistant", content=[ContentPart(type="refusal", refusal="no")]),
        ChatMessage(role="user", content=""),
    ]
    assert result.names["messages[2]"] == "input[2]"


def test_reasoning_text_and_calls_of_one_turn_are_one_message() -> None:
    result = conversation(
        {"role": "user", "content": "q"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": "I look."},
        call("f", "c1"),
        call("g", "c2", namespace="mcp__x__"),
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        call("h", "c3", namespace="space"),
    )
    assert result.messages == [
        ChatMessage(role="user", content="q"),
        ChatMessage(
            role="assistant",
            reasoning_content="hm",
            content="I look.",
            tool_calls=[
                ToolCall(FunctionCall("f", "{}"), id="c1"),
                ToolCall(FunctionCall("mcp__x__g", "{}"), id="c2"),
            ],
        ),
        ChatMessage(role="tool", content="1", tool_call_id="c1", name="f"),
        ChatMessage(role="tool", content="2", tool_call_id="c2", name="mcp__x__g"),
        ChatMessage(role="assistant", tool_calls=[ToolCall(FunctionCall("space__h", "{}"), id="c3")]),
    ]
    assert {name: path for name, path in result.names.items() if name.startswith("messages[1]")} == {
        "messages[1]": "input[1]",
        "messages[1].content": "input[2].content",
        "messages[1].tool_calls[0]": "input[3]",
        "messages[1].tool_calls[1]": "input[4]",
    }
    assert result.names["messages[3].content"] == "input[6].output"


def test_a_text_after_a_text_or_a_call_is_another_message() -> None:
    result = conversation(
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
        call("f", "c1"),
        {"role": "assistant", "content": "c"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
        call("f", "c2"),
    )
    assert [(m.content, len(m.tool_calls or ()), m.reasoning_content) for m in result.messages] == [
        ("a", 0, None),
        ("b", 1, None),
        ("c", 0, None),
        (None, 1, "s"),
    ]


def test_reasoning_that_only_its_server_can_read_is_left_out() -> None:
    result = conversation(
        {"role": "user", "content": "q"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
        {"role": "assistant", "content": "a"},
    )
    assert result.messages[1:] == [ChatMessage(role="assistant", content="a")]


def test_a_custom_call_is_a_call_with_one_argument() -> None:
    result = conversation(
        {"type": "custom_tool_call", "name": "apply_patch", "call_id": "c1", "input": 'say "é"\n'},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    )
    assert result.messages == [
        ChatMessage(
            role="assistant",
            tool_calls=[ToolCall(FunctionCall("apply_patch", '{"input":"say \\"é\\"\\n"}'), id="c1")],
        ),
        ChatMessage(role="tool", content="done", tool_call_id="c1", name="apply_patch"),
    ]


def test_images_are_content_parts() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}
    result = conversation({"role": "user", "content": [image]})
    assert result.messages == [
        ChatMessage(
            role="user",
            content=[
                ContentPart(type="image_url", image_url=ImageUrl("data:image/png;base64,AA", detail="low"))
            ],
        )
    ]


@pytest.mark.parametrize(
    ("item", "param", "message"),
    [
        ({"role": "tool", "content": "x"}, "input[1].role", "must be one of user"),
        ({"content": "x"}, "input[1].role", "it is missing"),
        ({"role": "user"}, "input[1].content", "is missing"),
        ({"type": "web_search_call", "id": "ws_1"}, "input[1].type", "'web_search_call' are not supported"),
        ({"type": "item_reference", "id": "x"}, "input[1].id", "there is no item 'x'"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[1].call_id", "is missing"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[1].name", "is missing"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input[1].arguments", "is missing"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f"}, "input[1].input", "is missing"),
        ({"type": "function_call_output", "output": "x"}, "input[1].call_id", "is missing"),
        ({"type": "function_call_output", "call_id": "c"}, "input[1].output", "is missing"),
        (
            {"role": "user", "content": [{"type": "input_file", "file_id": "x"}]},
            "input[1].content[0].type",
            "'input_file' are not supported",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "x"}]},
            "input[1].content[0].file_id",
            "send `image_url`",
        ),
        (
            {"role": "user", "content": [{"type": "input_image"}]},
            "input[1].content[0].image_url",
            "is missing",
        ),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[1].content[0].text", "is missing"),
        (
            {"type": "reasoning", "content": [{"type": "reasoning_text"}]},
            "input[1].content[0].text",
            "is missing",
        ),
    ],
)
def test_an_invalid_item_is_refused_with_its_path(item: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        conversation({"role": "user", "content": "q"}, item)
    assert caught.value.param == param


def test_references_are_replaced_by_the_items_of_their_ids() -> None:
    known = items({"role": "assistant", "id": "msg_1", "content": "a"})
    sent = items({"type": "item_reference", "id": "msg_1"}, {"id": "msg_1"}, {"role": "user", "content": "q"})
    assert [is_reference(item) for item in sent] == [True, True, False]
    assert resolve_references(sent, {"msg_1": known[0]}) == [known[0], known[0], sent[2]]
    with pytest.raises(RequestError, match="no stored item 'msg_1'") as caught:
        resolve_references(sent, {})
    assert caught.value.param == "input[0].id"
