"""`/v1/chat/completions`, as one JSON object and as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from support.api_fakes import (
    EOS,
    FakeReasoningParser,
    FakeToolCallParser,
    a_server,
    ask,
    backend_of,
    chat,
    error_of,
    events,
)

from fllm.chat import ChatTemplate
from fllm.events import ParserEvent, ToolStart
from fllm.values import GenerateRequest
from fllm_api.app_state import ParserChoice
from fllm_parsers.reasoning import cohere as cohere_reasoning
from fllm_parsers.reasoning import deepseek_v3 as v4_reasoning
from fllm_parsers.reasoning import kimi_k3 as k3_reasoning
from fllm_parsers.reasoning import minimax_m3 as m3_reasoning
from fllm_parsers.reasoning.identity import RawParser
from fllm_parsers.reasoning.qwen3 import Qwen3Parser
from fllm_parsers.tools.cohere import CohereCommandParser
from fllm_parsers.tools.dsml import DeepSeekV4Parser
from fllm_parsers.tools.hermes import HermesParser
from fllm_parsers.tools.kimi_k3 import KimiK3Parser
from fllm_parsers.tools.minimax_m3 import MiniMaxM3Parser

WEATHER: Any = [{"type": "function", "function": {"name": "weather", "description": "d", "unknown": 1}}]


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


def rendered(prompt: GenerateRequest, server: Any) -> str:
    text: str = server.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
    return text


def test_a_response_has_openais_format() -> None:
    response = chat(a_server())
    body = response.json()
    assert response.status_code == 200
    assert body.pop("id").startswith("chatcmpl-")
    assert body.pop("created") > 1_700_000_000
    prompt_tokens = len("<user>Hi<assistant>")
    assert body == {
        "object": "chat.completion",
        "model": "org/fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world!"},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": 4,
            "total_tokens": prompt_tokens + 4,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_stream_is_a_role_then_text_then_one_finish() -> None:
    chunks = events(chat(a_server(), stream=True))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " world"},
        {"content": "!"},
        {},
    ]
    finishes = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert finishes == [None, None, None, None, "stop"]
    assert all("usage" not in chunk for chunk in chunks)


def test_the_usage_is_the_last_chunk_if_requested() -> None:
    chunks = events(chat(a_server(), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == chat(a_server()).json()["usage"]
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_the_usage_is_in_every_chunk_if_requested() -> None:
    chunks = events(chat(a_server(), stream=True, stream_options={"continuous_usage_stats": True}))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 1, 2, 3, 4]


def test_each_of_several_choices_starts_and_finishes_once() -> None:
    chunks = events(chat(a_server(), stream=True, n=3))
    for index in range(3):
        parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert parts[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(part["delta"].get("content", "") for part in parts) == "Hello world!"
        assert [part["finish_reason"] for part in parts if part["finish_reason"]] == ["stop"]


def test_several_choices_count_their_prompt_once() -> None:
    one, three = (chat(a_server(), n=n).json()["usage"] for n in (1, 3))
    assert three["prompt_tokens"] == one["prompt_tokens"]
    assert three["completion_tokens"] == 3 * one["completion_tokens"]


def test_reasoning_is_separate_and_counted() -> None:
    server = a_server(["Hm", ".", "|", "Yes"], reasoning=FakeReasoningParser)
    body = chat(server).json()
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Yes",
        "reasoning_content": "Hm.",
    }
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2
    streamed = deltas(events(chat(server, stream=True)))
    assert streamed[1:] == [
        {"reasoning_content": "Hm"},
        {"reasoning_content": "."},
        {"content": "Yes"},
        {},
    ]


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("reasoning_content", {"reasoning_content"}),
        ("reasoning", {"reasoning"}),
        ("both", {"reasoning_content", "reasoning"}),
    ],
)
def test_reasoning_is_in_the_fields_that_the_operator_chose(field: str, names: set[str]) -> None:
    server = a_server(["why", "|", "so"], reasoning=FakeReasoningParser, config={"reasoning_field": field})
    message = chat(server).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "so", **dict.fromkeys(names, "why")}
    deltas = [chunk["choices"][0]["delta"] for chunk in events(chat(server, stream=True))]
    assert [delta for delta in deltas if names & set(delta)] == [dict.fromkeys(names, "why")]
    assert all(not {"reasoning_content", "reasoning"} & set(delta) - names for delta in deltas)


def test_content_is_null_if_there_is_only_reasoning() -> None:
    message = chat(a_server(["Hm"], reasoning=FakeReasoningParser)).json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": None, "reasoning_content": "Hm"}


def test_a_response_without_text_has_empty_content() -> None:
    assert chat(a_server([])).json()["choices"][0]["message"]["content"] == ""


def test_a_call_starts_with_its_name_and_continues_with_its_index() -> None:
    server = a_server(["[weather:", "{}", "]"], tools=FakeToolCallParser)
    first, *rest, last = deltas(events(chat(server, stream=True, tools=WEATHER)))[1:]
    [call] = first["tool_calls"]
    assert call.pop("id").startswith("call_")
    assert call == {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert rest == [{"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}]
    assert last == {}


def test_a_call_keeps_the_id_that_the_model_gave_it_once() -> None:
    class Numbered(FakeToolCallParser):
        def feed(self, text: str) -> Iterator[ParserEvent]:
            for event in super().feed(text):
                yield ToolStart(event.index, event.name, "f:0") if isinstance(event, ToolStart) else event

        @staticmethod
        def new_call_id() -> str:
            return "ours"

    body = chat(a_server(["[f:{}][f:{}]"], tools=Numbered), tools=WEATHER).json()
    assert [call["id"] for call in body["choices"][0]["message"]["tool_calls"]] == ["f:0", "ours"]


def test_a_call_is_a_message_without_content() -> None:
    choice = chat(a_server(["[weather:{}]"], tools=FakeToolCallParser), tools=WEATHER).json()["choices"][0]
    [call] = choice["message"].pop("tool_calls")
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    assert choice["message"] == {"role": "assistant", "content": None}
    assert choice["finish_reason"] == "tool_calls"


def test_without_parallel_calls_only_the_first_is_kept() -> None:
    server = a_server(["[weather:1]", "[weather:2]"], tools=FakeToolCallParser)

    def arguments(**options: Any) -> list[str]:
        message = chat(server, tools=WEATHER, **options).json()["choices"][0]["message"]
        return [call["function"]["arguments"] for call in message["tool_calls"]]

    assert arguments() == arguments(parallel_tool_calls=True) == ["1", "2"]
    assert arguments(parallel_tool_calls=False) == ["1"]


def test_the_prompt_shows_the_tools_unless_the_choice_is_none() -> None:
    server = a_server(["[weather:1]"], tools=FakeToolCallParser)
    for choice in (None, "auto", "none"):
        chat(server, tools=WEATHER, tool_choice=choice)
    shown, also, hidden = (rendered(prompt, server) for prompt in backend_of(server).prompts)
    assert '{"type": "function", "function": {"name": "weather", "description": "d"' in shown
    assert also == shown
    assert "weather" not in hidden


def test_calls_are_text_if_no_tool_may_be_called() -> None:
    server = a_server(["[weather:1]"], tools=FakeToolCallParser)
    for options in ({}, {"tools": []}, {"tools": WEATHER, "tool_choice": "none"}):
        assert chat(server, **options).json()["choices"][0]["message"]["content"] == "[weather:1]"


def test_without_a_parser_the_prompt_explains_how_to_call_tools() -> None:
    server = a_server(["[weather:1]"])
    for choice in ("auto", "required", "none"):
        chat(server, tools=WEATHER, tool_choice=choice)
    shown, *forced, hidden = (rendered(prompt, server) for prompt in backend_of(server).prompts)
    assert '[{"name": "function_name", "parameters": {"parameter": "value"}}]' in shown
    assert all(prompt == shown for prompt in forced)
    assert "function_name" not in hidden


@pytest.mark.parametrize("selected_by", ["auto", "option"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_plain_response_is_content_if_auto_selected_the_reasoning_parser(
    selected_by: Literal["auto", "option"], stream: bool
) -> None:
    choices = {"reasoning_parser": ParserChoice("qwen3", selected_by)}
    server = a_server(["Hello"], reasoning=Qwen3Parser, parser_choices=choices)
    response = chat(server, stream=stream)
    if stream:
        parts = [chunk["choices"][0]["delta"] for chunk in events(response)]
    else:
        parts = [response.json()["choices"][0]["message"]]
    fields = {key: value for part in parts for key, value in part.items() if value and key != "role"}
    field = "content" if selected_by == "auto" else "reasoning_content"
    assert fields == {field: "Hello"}


def test_parsers_receive_prompt_tools_and_template_arguments() -> None:
    made: list[FakeToolCallParser] = []

    def make(context: Any) -> FakeToolCallParser:
        made.append(FakeToolCallParser(context))
        return made[-1]

    server = a_server(tools=make)
    chat(server, tools=WEATHER, chat_template_kwargs={"note": "!"})
    [parser] = made
    assert parser.context.prompt == rendered(backend_of(server).prompts[0], server)
    assert [tool.name for tool in parser.context.tools] == ["weather"]
    assert parser.context.template_kwargs == {"note": "!"}


def test_chosen_tokens_have_log_probabilities() -> None:
    choice = chat(a_server(["Hi"]), logprobs=True).json()["choices"][0]
    assert choice["logprobs"] == {
        "content": [
            {"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []},
            {"token": EOS, "logprob": -0.25, "bytes": list(EOS.encode()), "top_logprobs": []},
        ]
    }


def test_the_likeliest_tokens_are_listed_and_nothing_is_infinite() -> None:
    choice = chat(a_server(["Hi"]), logprobs=True, top_logprobs=3).json()["choices"][0]
    top = choice["logprobs"]["content"][0]["top_logprobs"]
    assert [(each["token"], each["logprob"]) for each in top] == [("Hi", -0.25), ("!", -2.0), ('"', -9999.0)]


def test_given_tokens_replace_the_most_likely_ones() -> None:
    server = a_server(["Hi"])
    [a, b] = server.tokenizer.encode("ab", add_special_tokens=False)
    backend_of(server).given_logprobs = {a: -1.0, b: -3.0}
    choice = chat(server, logprobs=True, logprob_token_ids=[b, a, b]).json()["choices"][0]
    top = choice["logprobs"]["content"][0]["top_logprobs"]
    assert [(each["token"], each["logprob"]) for each in top] == [("b", -3.0), ("a", -1.0)]


def test_tokens_may_be_shown_by_their_ids() -> None:
    server = a_server(["Hi"])
    choice = chat(server, logprobs=True, return_tokens_as_token_ids=True).json()["choices"][0]
    [token, end] = backend_of(server).steps
    shown = [entry["token"] for entry in choice["logprobs"]["content"]]
    assert shown == [f"token_id:{token[0]}", f"token_id:{end[0]}"]


def test_part_of_a_character_is_shown_as_its_bytes() -> None:
    server = a_server()
    snowman = server.tokenizer.encode("☃", add_special_tokens=False)
    backend_of(server).steps = [[i] for i in snowman]
    choice = chat(server, logprobs=True).json()["choices"][0]
    assert choice["message"]["content"] == "☃"
    assert choice["logprobs"]["content"][0]["token"] == "bytes:\\xe2"
    assert [byte for entry in choice["logprobs"]["content"] for byte in entry["bytes"]] == list("☃".encode())


def test_log_probabilities_are_sent_with_the_text_of_their_tokens() -> None:
    server = a_server()
    backend_of(server).steps = [[i] for i in server.tokenizer.encode("☃!", add_special_tokens=False)]
    chunks = events(chat(server, stream=True, logprobs=True))
    counts = [len((chunk["choices"][0]["logprobs"] or {"content": ()})["content"]) for chunk in chunks]
    assert counts == [0, 3, 1, 0]


def test_the_response_names_the_stop_string_or_token_that_ended_it() -> None:
    server = a_server(["Hello", " wor", "ld"])
    choice = chat(server, stop=["wo"]).json()["choices"][0]
    assert (choice["message"]["content"], choice["stop_reason"]) == ("Hello ", "wo")
    last = events(chat(server, stop="wo", stream=True))[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", "wo")
    assert chat(server, stop="wo", include_stop_str_in_output=True).json()["choices"][0]["message"][
        "content"
    ] == ("Hello wo")


def test_max_tokens_ends_a_response() -> None:
    choice = chat(a_server(), max_completion_tokens=1, max_tokens=3).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello", "length")


def test_special_tokens_can_be_shown() -> None:
    server = a_server(["Hi", "<s>"])
    assert chat(server).json()["choices"][0]["message"]["content"] == "Hi"
    shown = chat(server, skip_special_tokens=False).json()["choices"][0]["message"]["content"]
    assert shown == "Hi<s>"


def test_content_may_be_a_list_of_texts() -> None:
    server = a_server()
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "unknown": 1}]
    chat(server, messages=[{"role": "user", "content": parts}])
    assert "a\nb" in rendered(backend_of(server).prompts[0], server)


def test_the_template_receives_its_arguments() -> None:
    server = a_server()
    chat(server, chat_template_kwargs={"note": "N!"}, reasoning_effort="high")
    assert rendered(backend_of(server).prompts[0], server) == "<user>HiN!high<assistant>"


def test_the_template_receives_documents() -> None:
    template = ChatTemplate.compile(
        {"default": "{% for each in documents %}[{{ each.title }}]{% endfor %}{{ messages[0].content }}"},
        special_tokens={},
    )
    server = a_server(template=template)
    chat(server, documents=[{"title": "A"}, {"title": "B"}])
    chat(server, documents=[{"title": "A"}], chat_template_kwargs={"documents": []})
    assert [rendered(prompt, server) for prompt in backend_of(server).prompts] == ["[A][B]Hi", "Hi"]


def test_the_priority_reaches_the_backend() -> None:
    server = a_server()
    chat(server, priority=-3)
    assert backend_of(server).prompts[0].priority == -3


def test_the_prompt_may_end_without_a_generation_prompt() -> None:
    server = a_server()
    role = chat(server, add_generation_prompt=False).json()["choices"][0]["message"]["role"]
    assert rendered(backend_of(server).prompts[0], server) == "<user>Hi"
    assert role == "user"


def test_the_final_message_can_be_continued_and_echoed() -> None:
    server = a_server([" there"])
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    for echo, content in ((False, " there"), (True, "Hello there")):
        options: dict[str, Any] = {"messages": messages, "continue_final_message": True, "echo": echo}
        message = chat(server, **options).json()["choices"][0]["message"]
        assert message == {"role": "assistant", "content": content}
        streamed = deltas(events(chat(server, **options, stream=True)))
        assert "".join(delta.get("content", "") for delta in streamed) == content
    assert rendered(backend_of(server).prompts[0], server) == "<user>Hi<assistant>Hello"


SAVE_NOTE: Any = [{"type": "function", "function": {"name": "save_note", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "save_note"}}
HALF = ['[{"name": "save_note", ', '"parameters": {"title": "Mi', "lk"]
"""Half a call in the server's own format."""
TAGGED_HALF = ['<tool_call>\n{"name": "save_note", ', '"arguments": {"title": "Mi', "lk"]


def folded(chunks: list[dict[str, Any]]) -> tuple[str | None, list[tuple[str, str]]]:
    """Return content and calls of a stream, as a client assembles them."""
    content = "".join(delta.get("content") or "" for delta in deltas(chunks))
    calls: list[tuple[str, str]] = []
    for delta in deltas(chunks):
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                calls.append((call["function"]["name"], ""))
            calls[-1] = (calls[-1][0], calls[-1][1] + call["function"]["arguments"])
    return content or None, calls


@pytest.mark.parametrize("choice", ["required", NAMED, "auto"])
@pytest.mark.parametrize(("words", "tools"), [(HALF, None), (TAGGED_HALF, HermesParser)])
@pytest.mark.parametrize(
    ("options", "reason", "arguments"),
    [
        ({"max_tokens": 3}, "length", '{"title": "Milk'),
        ({"max_tokens": 2}, "length", '{"title": "Mi'),
        ({"stop": "lk"}, "tool_calls", '{"title": "Mi'),
        ({"max_tokens": 1}, "length", None),
    ],
)
def test_a_call_that_is_cut_off_is_a_call_and_not_content(
    choice: Any, words: list[str], tools: Any, options: dict[str, Any], reason: str, arguments: str | None
) -> None:
    server = a_server([*words, '"}}'], tools=tools, card={"grammar": "fake"})
    asked = {"tools": SAVE_NOTE, "tool_choice": choice, **options}
    [answer] = chat(server, **asked).json()["choices"]
    calls = [
        (call["function"]["name"], call["function"]["arguments"])
        for call in answer["message"].get("tool_calls", ())
    ]
    assert calls == ([("save_note", arguments)] if arguments else [])
    assert answer["message"]["content"] == (None if calls else "")
    assert answer["finish_reason"] == ("stop" if choice == NAMED and reason == "tool_calls" else reason)
    streamed = events(chat(server, **asked, stream=True))
    assert folded(streamed) == (None, calls)
    assert streamed[-1]["choices"][0]["finish_reason"] == answer["finish_reason"]


@pytest.mark.parametrize("choice", ["required", "auto"])
@pytest.mark.parametrize(
    "left", ["\n", "\n<t", "\n</tool_", "\n</tool_call>\n<tool_call>", '\n<tool_call>\n{"name": "']
)
def test_what_is_left_behind_a_call_is_not_content(choice: str, left: str) -> None:
    call = '<tool_call>\n{"name": "save_note", "arguments": {}}'
    server = a_server([call, left, "."], tools=HermesParser, card={"grammar": "fake"})
    asked = {"tools": SAVE_NOTE, "tool_choice": choice, "max_tokens": 2}
    [answer] = chat(server, **asked).json()["choices"]
    assert answer["message"]["content"] is None
    assert answer["message"]["tool_calls"][0]["function"] == {"name": "save_note", "arguments": "{}"}
    assert answer["finish_reason"] == "length"
    assert folded(events(chat(server, **asked, stream=True))) == (None, [("save_note", "{}")])


M3 = "]<]minimax[>["
FAMILIES: dict[str, tuple[Any, Any, list[str]]] = {
    "DeepSeek-V4": (
        v4_reasoning.DeepSeekV4Parser,
        DeepSeekV4Parser,
        [
            "Hm.</think>",
            '\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="save_note">\n',
            '<｜DSML｜parameter name="title" string="true">Mi',
            "lk</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        ],
    ),
    "Kimi K3": (
        k3_reasoning.KimiK3Parser,
        KimiK3Parser,
        [
            "Hm.<|close|>think<|sep|><|open|>response<|sep|><|close|>response<|sep|>",
            '<|open|>tools<|sep|><|open|>call tool="save_note" index="1"<|sep|>',
            '<|open|>argument key="title" type="string"<|sep|>Mi',
            "lk<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|><|close|>message<|sep|>",
        ],
    ),
    "MiniMax-M3": (
        m3_reasoning.MiniMaxM3Parser,
        MiniMaxM3Parser,
        [
            "<mm:think>Hm.</mm:think>",
            f'{M3}<tool_call>\n{M3}<invoke name="save_note">',
            f"{M3}<title>Mi",
            f"lk{M3}</title>{M3}</invoke>\n{M3}</tool_call>",
        ],
    ),
    "Cohere": (
        cohere_reasoning.CohereCommand3Parser,
        CohereCommandParser,
        [
            "<|START_THINKING|>Hm.<|END_THINKING|>",
            '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "save_note", ',
            '"parameters": {"title": "Mi',
            'lk"}}\n]<|END_ACTION|>',
        ],
    ),
}


@pytest.mark.parametrize(("reasoning", "tools", "words"), FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    ("options", "reason", "arguments"),
    [({}, "tool_calls", '{"title": "Milk"}'), ({"max_tokens": 3}, "length", '{"title": "Mi')],
)
def test_reasoning_and_calls_of_recent_models_are_told_apart(
    reasoning: Any, tools: Any, words: list[str], options: dict[str, Any], reason: str, arguments: str
) -> None:
    server = a_server(words, reasoning=reasoning, tools=tools)
    schema = {"type": "object", "properties": {"title": {"type": "string"}}}
    function = {"name": "save_note", "parameters": schema}
    asked = {"tools": [{"type": "function", "function": function}], **options}
    [answer] = chat(server, **asked).json()["choices"]
    [call] = answer["message"]["tool_calls"]
    assert call["function"] == {"name": "save_note", "arguments": arguments}
    assert (answer["message"]["content"], answer["message"]["reasoning_content"]) == (None, "Hm.")
    assert answer["finish_reason"] == reason
    streamed = events(chat(server, **asked, stream=True))
    assert folded(streamed) == (None, [("save_note", arguments)])
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas(streamed)) == "Hm."


def test_raw_shows_what_the_model_writes_although_the_request_has_tools() -> None:
    words = ["<think>Hm.</think>", '<tool_call>\n{"name": "save_note"', ', "arguments": {}}\n</tool_call>']
    server = a_server(words, reasoning=RawParser, tools=RawParser)
    [answer] = chat(server, tools=SAVE_NOTE).json()["choices"]
    assert (answer["message"]["content"], answer["finish_reason"]) == ("".join(words), "stop")
    assert folded(events(chat(server, tools=SAVE_NOTE, stream=True))) == ("".join(words), [])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("The answer is", {"content": "more"}),
        ([{"type": "text", "text": "The answer is"}], {"content": "more"}),
        ("<think>\nhmm", {"content": None, "reasoning_content": "more"}),
    ],
)
def test_the_continuation_of_an_answer_is_content_and_that_of_reasoning_is_not(
    message: Any, expected: dict[str, Any]
) -> None:
    server = a_server(["more"], reasoning=Qwen3Parser)
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": message}]
    options: dict[str, Any] = {"messages": messages, "continue_final_message": True}
    answer = chat(server, **options).json()["choices"][0]["message"]
    assert answer == {"role": "assistant", **expected}
    streamed = deltas(events(chat(server, **options, stream=True)))
    assert streamed[1:-1] == [{key: value for key, value in expected.items() if value}]


def test_the_role_of_responses_can_be_set() -> None:
    message = chat(a_server(config={"response_role": "bot"})).json()["choices"][0]["message"]
    assert message["role"] == "bot"


def test_without_a_template_a_chat_error_explains_what_to_do() -> None:
    response = chat(a_server(template=None))
    assert response.status_code == 400
    assert "--chat-template" in error_of(response)["message"]
    assert ask(
        a_server(template=None), "POST", "/v1/completions", json={"model": "m", "prompt": "x"}
    ).is_success


def test_the_likeliest_of_several_are_returned() -> None:
    server = a_server(["Hi"])
    backend_of(server).logprobs = (-3.0, -0.5, -2.0)
    body = chat(server, best_of=3, n=2, logprobs=True).json()
    likelihoods = [choice["logprobs"]["content"][0]["logprob"] for choice in body["choices"]]
    assert likelihoods == [-0.5, -2.0]
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert chat(server, best_of=3).json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("stop_early", [True, False, "never"])
def test_a_beam_search_returns_its_best(stop_early: object) -> None:
    server = a_server()
    options: dict[str, Any] = {"use_beam_search": True, "best_of": 2, "max_tokens": 2, "logprobs": True}
    body = chat(server, n=2, length_penalty=0.5, early_stopping=stop_early, **options).json()
    best, second = body["choices"]
    assert (best["message"]["content"], best["finish_reason"]) == ("HelloHello", "length")
    assert second["message"]["content"] != best["message"]["content"]
    assert [entry["logprob"] for entry in best["logprobs"]["content"]] == [-0.25, -0.25]
    assert len(chat(server, **options).json()["choices"]) == 1
