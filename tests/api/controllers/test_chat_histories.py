"""Chats as clients and other servers write them: each is accepted, and is in the prompt."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage
from support.api_fakes import EOS, FakeToolCallParser, a_server, backend_of, chat, error_of, events
from support.paths import SHARED
from support.strict_templates import TEMPLATES

from fllm.chat import ChatTemplate
from fllm_api.app_state import AppState

USER = {"role": "user", "content": "q"}
TOOLS: Any = [{"type": "function", "function": {"name": "f"}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "r"}
FAMILIES = SHARED / "templates"
needs_families = pytest.mark.skipif(not FAMILIES.exists(), reason=f"there are no templates at {FAMILIES}")


@cache
def server_with(source: str, words: tuple[str, ...] = (" more", EOS), **parts: Any) -> AppState:
    template = ChatTemplate.compile({"default": source}, special_tokens={"bos_token": "", "eos_token": ""})
    return a_server(words, template=template, card={"max_model_len": 8192}, **parts)


def family(name: str) -> str:
    return (FAMILIES / f"{name}.jinja").read_text()


def prompt_of(server: AppState, *messages: Any, **body: Any) -> str:
    response = chat(server, messages=[*messages], **body)
    assert response.status_code == 200, response.text
    text: str = server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)
    return text


@needs_families
@pytest.mark.parametrize("name", ["openai-gpt-oss-120b", "Qwen-Qwen3-0.6B"])
def test_reasoning_is_in_the_prompt_under_either_name(name: str) -> None:
    server = server_with(family(name))
    for field in ("reasoning", "reasoning_content"):
        asked = {"role": "assistant", "content": None, field: "WHY", "tool_calls": [CALL]}
        assert "WHY" in prompt_of(server, USER, asked, RESULT)


@needs_families
@pytest.mark.parametrize(
    "arguments", ['{"x": "unterminated', "null", "[1]", '"abc"', "", None, {"x": "y"}, "abc"]
)
@pytest.mark.parametrize("name", ["Qwen-Qwen3-0.6B", "mistralai-Mistral-Nemo-Instruct-2407", "GLM-4.6"])
def test_any_arguments_are_accepted(name: str, arguments: Any) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    prompt = prompt_of(
        server_with(family(name)), USER, {"role": "assistant", "tool_calls": [call]}, RESULT, USER
    )
    for word in ("unterminated", "abc"):
        assert (word in prompt) == (word in str(arguments))


@needs_families
def test_two_calls_of_llama_can_be_sent_back() -> None:
    server = server_with(
        family("meta-llama-Llama-3.1-8B-Instruct"), ("[f:{}][g:{}]", EOS), tools=FakeToolCallParser
    )
    tools = [*TOOLS, {"type": "function", "function": {"name": "g"}}]
    message = chat(server, messages=[USER], tools=tools).json()["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "r"} for call in message["tool_calls"]]
    prompt = prompt_of(server, USER, message, *results, tools=tools)
    assert prompt.index('{"name": "f"') < prompt.index('{"name": "g"')


@needs_families
def test_ids_of_new_calls_have_the_form_that_mistrals_template_demands() -> None:
    server = server_with(
        family("mistralai-Mistral-Nemo-Instruct-2407"), ("[f:{}]", EOS), tools=FakeToolCallParser
    )
    message = chat(server, messages=[USER], tools=TOOLS).json()["choices"][0]["message"]
    [call] = message["tool_calls"]
    assert len(call["id"]) == 9
    assert call["id"].isalnum()
    result = {"role": "tool", "tool_call_id": call["id"], "content": "r"}
    assert prompt_of(server, USER, message, result, tools=TOOLS).count(call["id"]) == 2


@needs_families
def test_foreign_ids_are_mapped_alike_in_call_and_result() -> None:
    server = server_with(family("mistralai-Mistral-Nemo-Instruct-2407"))
    prompt = prompt_of(server, USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT)
    called = prompt.split('"id": "')[1][:9]
    assert called.isalnum()
    assert f'"call_id": "{called}"' in prompt


@needs_families
@pytest.mark.parametrize(
    "name", ["openai-gpt-oss-120b", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "google-gemma-2-2b-it"]
)
def test_all_system_messages_are_in_the_prompt(name: str) -> None:
    system, developer = {"role": "system", "content": "AAA"}, {"role": "developer", "content": "BBB"}
    prompt = prompt_of(
        server_with(family(name)), system, developer, USER, {"role": "system", "content": "CCC"}, USER
    )
    assert "AAA\n\nBBB\n\nCCC" in prompt


@needs_families
@pytest.mark.parametrize("name", ["openai-gpt-oss-120b", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"])
def test_a_tool_needs_no_description(name: str) -> None:
    server = server_with(family(name), tools=FakeToolCallParser)
    function = {"name": "look_up", "parameters": {"type": "object", "properties": {}}}
    for described in ({}, {"description": None}, {"description": "", "parameters": None}):
        tools = [{"type": "function", "function": {**function, **described}}]
        assert "look_up" in prompt_of(server, USER, tools=tools)


def test_what_the_sdk_returns_can_be_sent_back_as_it_is() -> None:
    server = a_server(["[f:{}]", EOS], tools=FakeToolCallParser)
    message = chat(server, messages=[USER], tools=TOOLS).json()["choices"][0]["message"]
    dumped = ChatCompletionMessage.model_validate(message).model_dump()
    assert {"audio", "refusal", "annotations", "function_call"} <= dumped.keys()
    call_id = message["tool_calls"][0]["id"]
    result = {
        "role": "tool",
        "tool_call_id": call_id,
        "name": "f",
        "content": [{"type": "text", "text": "r"}],
    }
    assert prompt_of(server, USER, dumped, result, tools=TOOLS).count("r") > 0


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "tool_calls": []},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
        },
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {
            "role": "assistant",
            "content": "a",
            "reasoning_details": [],
            "images": None,
            "index": 0,
            "unknown": {},
        },
        {"role": "assistant", "tool_calls": [{**CALL, "type": None, "index": 0}]},
        {"role": "tool", "content": "r"},
        {"role": "tool", "content": None, "tool_call_id": "1"},
        {"role": "tool", "content": [{"type": "text", "text": "r"}], "tool_call_id": ""},
        {"role": "function", "name": "f", "content": None},
        {"role": "user", "content": "u", "name": "bob"},
    ],
)
def test_messages_of_other_servers_are_accepted(message: Any) -> None:
    for name in ("one system message, first", "alternating, no system message, no tools", "content as parts"):
        assert prompt_of(server_with(TEMPLATES[name]), USER, message, USER).count(USER["content"]) >= 2


CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}<end>{% endfor %}"
CHATML += "{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.mark.parametrize(
    "content", ["The answer is", [{"type": "text", "text": "The answer is"}], "The answer is\n"]
)
def test_a_final_message_of_the_assistant_is_continued(content: Any) -> None:
    server = server_with(CHATML)
    messages = [USER, {"role": "assistant", "content": content}]
    assert prompt_of(server, *messages) == "<user>q<end><assistant>The answer is"
    message = chat(server, messages=messages).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": " more"}
    chunks = events(chat(server, messages=messages, stream=True))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == " more"


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({"add_generation_prompt": True}, "<user>q<end><assistant>a<end><assistant>"),
        ({"add_generation_prompt": False}, "<user>q<end><assistant>a<end>"),
        ({"continue_final_message": False}, "<user>q<end><assistant>a<end><assistant>"),
        ({"continue_final_message": True}, "<user>q<end><assistant>a"),
    ],
)
def test_the_flags_decide_whether_a_final_message_is_continued(options: Any, prompt: str) -> None:
    assert prompt_of(server_with(CHATML), USER, {"role": "assistant", "content": "a"}, **options) == prompt


@pytest.mark.parametrize("content", ["", " \n", None, []])
def test_an_empty_beginning_of_an_answer_has_no_effect(content: Any) -> None:
    prompt = prompt_of(server_with(CHATML), USER, {"role": "assistant", "content": content})
    assert prompt == "<user>q<end><assistant>"


def test_a_final_message_with_a_call_or_only_reasoning_is_not_continued() -> None:
    server = server_with(CHATML)
    for fields in ({"tool_calls": [CALL]}, {"reasoning": "why"}):
        assert prompt_of(server, USER, {"role": "assistant", **fields}).endswith("<end><assistant>")


def test_a_role_of_the_template_is_accepted_and_any_other_is_a_400() -> None:
    source = (
        "{% for m in messages if m.role in ['user', 'critic', 'assistant'] %}<{{ m.role }}>{{ m.content }}"
    )
    server = server_with(source + "{% endfor %}")
    assert prompt_of(server, USER, {"role": "critic", "content": "c"}) == "<user>q<critic>c"
    response = chat(server, messages=[USER, {"role": "wizard", "content": "c"}])
    assert response.status_code == 400
    assert error_of(response)["param"] == "messages[1].role"
