"""Ollama's requests become chat requests and completion requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fllm import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    ContentPart,
    FunctionCall,
    ImageUrl,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedSchema,
    RequestError,
    ToolCall,
)
from fllm_dialects.field_names import renamed
from fllm_dialects.ollama.protocol import OllamaChatRequest, OllamaGenerateRequest
from fllm_dialects.ollama.reader import read_chat, read_generate, renamed_fields


def a_chat(**body: Any) -> OllamaChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}
    return msgspec.convert(body, OllamaChatRequest)


def a_prompt(**body: Any) -> OllamaGenerateRequest:
    return msgspec.convert({"model": "m", "prompt": "Hi", **body}, OllamaGenerateRequest)


def test_a_chat_is_streamed_unless_it_says_otherwise() -> None:
    assert read_chat(a_chat()) == ChatRequest(
        model="m", stream=True, messages=[ChatMessage(role="user", content="Hi")]
    )
    assert read_chat(a_chat(stream=False)).stream is False
    assert read_generate(a_prompt()) == read_chat(a_chat())


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ({"num_predict": 5}, "max_completion_tokens", 5),
        ({"num_predict": -1}, "max_completion_tokens", None),
        ({"temperature": 0}, "temperature", 0),
        ({"top_k": 40}, "top_k", 40),
        ({"top_k": 40.0}, "top_k", 40),
        ({"num_predict": 5.9}, "max_completion_tokens", 5),
        ({"num_predict": 0.5}, "max_completion_tokens", None),
        ({"seed": 3.0}, "seed", 3),
        ({"seed": 2**53 - 1}, "seed", 2**53 - 1),
        ({"seed": 2**63 - 1}, "seed", 2**63 - 1),
        ({"top_p": 0.9}, "top_p", 0.9),
        ({"top_p": 2}, "top_p", 1.0),
        ({"top_p": 0}, "top_p", 1e-9),
        ({"min_p": 0.1}, "min_p", 0.1),
        ({"seed": 7}, "seed", 7),
        ({"seed": -1}, "seed", None),
        ({"stop": ["a", "b"]}, "stop", ["a", "b"]),
        ({"stop": "a"}, "stop", "a"),
        ({"repeat_penalty": 1.2}, "repetition_penalty", 1.2),
        ({"repeat_penalty": 0}, "repetition_penalty", 1.0),
        ({"presence_penalty": 1.5}, "presence_penalty", 1.5),
        ({"frequency_penalty": -1}, "frequency_penalty", -1),
    ],
    ids=str,
)
def test_options_become_sampling_parameters(option: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(read_chat(a_chat(options=option)), field) == value


def test_other_options_are_ignored() -> None:
    options = {"num_ctx": 8192, "mirostat": 1, "numa": True, "typical_p": 0.7, "unknown": {}}
    assert read_chat(a_chat(options=options, keep_alive="5m")) == read_chat(a_chat())


@pytest.mark.parametrize(
    ("think", "enabled", "effort"),
    [(None, None, None), (True, True, None), (False, None, "none"), ("high", None, "high"), ("", None, None)],
)
def test_think_turns_reasoning_on_and_off(
    think: bool | str | None, enabled: bool | None, effort: str | None
) -> None:
    read = read_chat(a_chat(think=think))
    assert (read.enable_thinking, read.reasoning_effort) == (enabled, effort)


def test_a_format_is_a_json_object_or_a_schema() -> None:
    assert read_chat(a_chat(format="json")).response_format == JsonObjectFormat()
    schema = {"type": "object"}
    expected = JsonSchemaFormat(json_schema=NamedSchema(schema=schema))
    assert read_chat(a_chat(format=schema)).response_format == expected
    assert read_chat(a_chat(format="")).response_format is None


def test_messages_may_have_images_calls_and_results() -> None:
    read = read_chat(
        a_chat(
            messages=[
                {"role": "user", "content": "see", "images": ["QUJD", "data:image/png;base64,QUJD"]},
                {
                    "role": "assistant",
                    "thinking": "hm",
                    "tool_calls": [
                        {"id": "c1", "function": {"name": "f", "arguments": {"x": 1}, "index": 0}}
                    ],
                },
                {"role": "tool", "content": "5", "tool_name": "f"},
            ]
        )
    )
    assert read.messages == [
        ChatMessage(
            role="user",
            content=[
                ContentPart("image_url", image_url=ImageUrl("data:;base64,QUJD")),
                ContentPart("image_url", image_url=ImageUrl("data:image/png;base64,QUJD")),
                ContentPart("text", text="see"),
            ],
        ),
        ChatMessage(
            role="assistant",
            content="",
            thinking="hm",
            tool_calls=[ToolCall(FunctionCall("f", {"x": 1}), id="c1")],
        ),
        ChatMessage(role="tool", content="5", tool_name="f"),
    ]


def test_a_system_message_precedes_the_prompt() -> None:
    read = read_generate(a_prompt(system="Be brief.", images=["QUJD"]))
    assert isinstance(read, ChatRequest)
    assert [message.role for message in read.messages] == ["system", "user"]
    assert read.messages[0].content == "Be brief."


def test_a_raw_prompt_is_a_completion() -> None:
    read = read_generate(a_prompt(raw=True, logprobs=True, top_logprobs=3, options={"num_predict": 4}))
    assert read == CompletionRequest(model="m", stream=True, prompt="Hi", max_tokens=4, logprobs=3)
    read = read_generate(a_prompt(suffix="end"))
    assert read == CompletionRequest(model="m", stream=True, prompt="Hi", max_tokens=-1, suffix="end")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"raw": True, "system": "x"}, "system"),
        ({"raw": True, "images": ["QUJD"]}, "images"),
        ({"suffix": "x", "think": True}, "think"),
    ],
)
def test_what_can_not_be_honoured_is_rejected(body: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError, match=f"`{param}`") as caught:
        read_generate(a_prompt(**body))
    assert caught.value.param == param


def test_errors_name_the_fields_of_the_client() -> None:
    names = renamed_fields(a_chat(messages=[{"role": "user", "content": "see", "images": ["QUJD"]}]))
    assert names["messages[0].content[0]"] == "messages[0].images[0]"
    assert names["max_completion_tokens"] == "options.num_predict"
    names = renamed_fields(a_prompt(system="x", images=["QUJD"]))
    assert names["messages[1].content[0]"] == "images[0]"
    assert (names["messages[0].content"], names["messages[1].content"]) == ("system", "prompt")


def test_the_schema_of_a_format_has_its_name_in_errors() -> None:
    assert renamed("response_format.json_schema.schema", renamed_fields(a_chat())) == "format"
