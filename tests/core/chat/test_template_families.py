"""Templates of real model families, compared with transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import tokenizers
from support.histories import is_whole
from support.paths import SHARED
from tokenizers import models

from fllm.chat import ChatTemplate
from fllm.errors import RequestError

FOLDER = SHARED / "templates"
FAMILIES = {file.stem: file.read_text() for file in sorted(FOLDER.glob("*.jinja"))}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

pytestmark = pytest.mark.skipif(not FAMILIES, reason=f"the templates of model families are not at {FOLDER}")
# A call without text is passed to these with empty content, since they fail without it or omit the call.
EMPTY = {
    "HuggingFaceTB-SmolLM3-3B",
    "Qwen-QwQ-32B",
    "Qwen-Qwen3-0.6B",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
}
ARGUMENTS_AS_TEXT = {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B"}
ADAPTED = {
    # A message of a role that it does not know is accepted at an odd position only.
    "google-gemma-2-2b-it": {"late system", "result without call"},
    # With tools, what the assistant says first becomes the user's.
    "meta-llama-Llama-3.1-8B-Instruct": {"assistant first"},
    "meta-llama-Llama-3.2-3B-Instruct": {"assistant first"},
    # The call is lost, but there is a tool of that name.
    "ibm-granite-granite-3.3-2B-Instruct": {"short id"},
}
TOOLS_ONLY = "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"
every_family = pytest.mark.parametrize("family", FAMILIES)

Message = dict[str, Any]


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def assistant(content: Any, *calls: Message, **fields: Any) -> Message:
    return {
        "role": "assistant",
        "content": content,
        **({"tool_calls": list(calls)} if calls else {}),
        **fields,
    }


def call(call_id: str, name: str, /, **arguments: Any) -> Message:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, content: str) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


SYSTEM = {"role": "system", "content": "You are <b>terse</b> & 'quoted'.\n"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place — today's",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name, e.g. 서울"},
                "unit": {"type": "string", "enum": ["C", "F"], "description": "Unit"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "The time",
        "parameters": {"type": "object", "properties": {}},
    },
}
ASK = user("How is it in Zürich?")
CALL = call("abcdefgh1", "get_weather", city="Zürich 🏔", unit="C", days=3, nested={"a": [1.5, None, True]})
RESULT = result("abcdefgh1", '{"sky": "clear <ok>"}')

CONVERSATIONS: dict[str, list[Message]] = {
    "plain": [user("Hello")],
    "spaces": [user("  Hello \n")],
    "unicode": [user("‘naïve’ 안녕 👩‍🚀 \u2028 <&>")],
    "system": [SYSTEM, user("Hello")],
    "turns": [user("Hello"), assistant("Hi!\n"), user("How are you?")],
    "system and turns": [SYSTEM, user("1"), assistant("2"), user("3"), assistant("4"), user("5")],
    "two users": [user("Hello"), user("Hello?")],
    "late system": [user("Hello"), SYSTEM, user("Hello?")],
    "assistant first": [assistant("Hello")],
    "thoughts": [user("1"), assistant("<think>\nhm\n</think>\n\n2"), user("3")],
    "thoughts apart": [user("1"), assistant("2", reasoning_content="hm"), user("3")],
    "unknown role": [{"role": "wizard", "content": "Hello"}],
    "call": [ASK, assistant(None, CALL)],
    "call and words": [ASK, assistant("I look.", CALL)],
    "result": [ASK, assistant(None, CALL), RESULT],
    "call, result, answer": [SYSTEM, ASK, assistant(None, CALL), RESULT, assistant("Clear."), user("Thanks")],
    "two calls": [
        ASK,
        assistant(None, CALL, call("abcdefgh2", "clock")),
        RESULT,
        result("abcdefgh2", "12:00"),
    ],
    "short id": [ASK, assistant(None, call("1", "clock")), result("1", "12:00")],
    "result without call": [ASK, RESULT],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "with tools": {"tools": [WEATHER, CLOCK]},
    "without prompt": {"add_generation_prompt": False},
    "not thinking": {"enable_thinking": False},
    "continued": {"add_generation_prompt": False, "continue_final_message": True},
    "with documents": {"documents": [{"doc_id": 1, "title": "A", "text": "Some text"}]},
}
FIELDS = ("tools", "add_generation_prompt", "continue_final_message")

Render = Callable[..., str]


@pytest.fixture(scope="module")
def theirs() -> Render:
    from transformers import PreTrainedTokenizerFast

    words = tokenizers.Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(SPECIAL.values())}, "<unk>")
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL)

    def render(source: str, messages: list[Message], **options: Any) -> str:
        options = {"add_generation_prompt": True, **options}
        text = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, **options)
        assert isinstance(text, str)
        return text

    return render


def ours(source: str, messages: list[Message], **options: Any) -> str:
    fields = {name: options.pop(name) for name in FIELDS if name in options}
    return compiled(source).render(as_sent(messages), **fields, kwargs=options)


@cache
def compiled(source: str) -> ChatTemplate:
    return ChatTemplate.compile({"default": source}, special_tokens=SPECIAL)


def as_sent(messages: list[Message]) -> list[Message]:
    """Return messages as a client sends them: arguments are text, and many fields are null."""
    absent = {"name": None, "refusal": None, "tool_calls": None}
    return [{**absent, **message} for message in map(with_text_arguments, messages)]


def as_taken(messages: list[Message], family: str) -> list[Message]:
    """Return messages in the format of the family's template."""
    if family in ARGUMENTS_AS_TEXT:
        messages = [with_text_arguments(message) for message in messages]
    if family in EMPTY:
        messages = [{**message, "content": message["content"] or ""} for message in messages]
    return messages


def with_text_arguments(message: Message) -> Message:
    copy: Message = json.loads(json.dumps(message))
    for each in copy.get("tool_calls", []):
        each["function"]["arguments"] = json.dumps(each["function"]["arguments"])
    return copy


@every_family
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_conversation_renders_as_in_transformers(family: str, variant: str, theirs: Render) -> None:
    source, options = FAMILIES[family], VARIANTS[variant]
    rendered = 0
    for name, messages in CONVERSATIONS.items():
        try:
            expected = theirs(source, as_taken(messages, family), **options)
        except Exception:  # noqa: BLE001 (they raise whatever the template does)
            expected = ""
        ends_with_call = bool(messages[-1].get("tool_calls"))
        if (
            name == "unknown role"
            or (family == TOOLS_ONLY and "tools" not in options)
            or (ends_with_call and "continue_final_message" in options)
        ):
            with pytest.raises(RequestError):
                ours(source, messages, **options)
        elif is_whole(expected, messages) and name not in ADAPTED.get(family, ()):
            assert ours(source, messages, **options) == expected, name
            rendered += 1
        elif messages[-1]["role"] == "assistant" or "continue_final_message" not in options:
            assert is_whole(ours(source, messages, **options), messages), name
    assert rendered or family == TOOLS_ONLY


@every_family
def test_empty_content_with_a_call_renders_like_null(family: str) -> None:
    without_text, empty = ([ASK, assistant(content, CALL)] for content in (None, ""))
    assert ours(FAMILIES[family], without_text, tools=[WEATHER]) == ours(
        FAMILIES[family], empty, tools=[WEATHER]
    )


@every_family
def test_text_parts_render_like_text(family: str) -> None:
    parts = [{"type": "text", "text": "Hello"}]
    options = {"tools": [WEATHER]} if "tool_use" in family else {}
    assert ours(FAMILIES[family], [user(parts)], **options) == ours(
        FAMILIES[family], [user("Hello")], **options
    )


@every_family
def test_every_family_passes_the_check(family: str) -> None:
    compiled(FAMILIES[family]).check()


def test_there_are_enough_families() -> None:
    assert len(FAMILIES) >= 10
