"""Answers as they were asked for, by the embedded model, through the real server and OpenAI's client."""

from __future__ import annotations

import concurrent.futures
import json
import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel, Field
from support.http_server import Server, serving
from support.token_ids import tokens_of

QUESTION: Any = [{"role": "user", "content": "Describe Paris."}]
SCHEMA = {
    "type": "object",
    "properties": {"large": {"type": "boolean"}, "river": {"enum": ["Seine", "Thames", "Rhine"]}},
    "required": ["large", "river"],
    "additionalProperties": False,
}
COLOUR = ["red", "green", "dark blue"]
DIGITS = r"[0-9]{3}-[0-9]{4}"
REQUIRED = {"tool_choice": "required"}
GRAMMAR = 'root ::= greeting ", " name\ngreeting ::= "Hello" | "Goodbye"\nname ::= [A-Z] [a-z]{2,8}'


class District(BaseModel):
    number: int = Field(ge=1, le=20)
    side: Literal["left bank", "right bank"]


class City(BaseModel):
    name: str = Field(max_length=30)
    large: bool
    districts: list[District] = Field(min_length=2, max_length=3)
    twin: District | None


@pytest.fixture
def client(server: Server) -> OpenAI:
    return OpenAI(base_url=server.api, api_key="EMPTY", max_retries=0)


@pytest.fixture(scope="module")
def thinker() -> Iterator[Server]:
    """A server that expects reasoning."""
    with serving("--reasoning-parser", "deepseek_r1", "--max-model-len", "2048") as running:
        yield running


def is_of_schema(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"large", "river"} and value["river"] in SCHEMA["properties"]["river"]["enum"]  # type: ignore[index]


def is_object(text: str) -> bool:
    return isinstance(json.loads(text), dict)


WAYS: Any = [
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}},
        is_of_schema,
    ),
    ({"structured_outputs": {"json": SCHEMA}}, is_of_schema),
    ({"guided_json": json.dumps(SCHEMA)}, is_of_schema),
    ({"response_format": {"type": "json_object"}, "max_tokens": 300}, is_object),
    ({"guided_regex": DIGITS}, lambda text: re.fullmatch(DIGITS, text)),
    ({"guided_choice": COLOUR}, COLOUR.__contains__),
    ({"guided_grammar": GRAMMAR}, lambda text: re.fullmatch("(Hello|Goodbye), [A-Z][a-z]{2,8}", text)),
]


def test_a_pydantic_model_is_parsed(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="m", messages=QUESTION, response_format=City, temperature=0, max_tokens=300
    )
    [choice] = answer.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, City)


@pytest.mark.parametrize(
    ("way", "obeyed"), WAYS, ids=lambda value: next(iter(value), None) if isinstance(value, dict) else ""
)
def test_every_way_to_ask_is_obeyed_streamed_and_not(client: OpenAI, way: Any, obeyed: Any) -> None:
    options: dict[str, Any] = {"model": "m", "max_tokens": 100, "seed": 5, "extra_body": way}
    chat = client.chat.completions.create(messages=QUESTION, **options).choices[0]
    assert chat.finish_reason == "stop"
    assert obeyed(chat.message.content), chat.message.content
    chunks: Any = client.chat.completions.create(messages=QUESTION, stream=True, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == chat.message.content
    text = client.completions.create(prompt="Paris is", **options).choices[0]
    assert obeyed(text.text), text.text
    pieces: Any = client.completions.create(prompt="Paris is", stream=True, **options)
    assert "".join(piece.choices[0].text for piece in pieces) == text.text


def test_each_of_several_answers_obeys(client: OpenAI) -> None:
    several: Any = {
        "model": "m",
        "messages": QUESTION,
        "logprobs": True,
        "extra_body": {"guided_json": SCHEMA},
    }
    for options in ({"n": 3}, {"n": 2, "extra_body": {"guided_json": SCHEMA, "best_of": 3}}):
        answer = client.chat.completions.create(**{**several, **options})
        assert len(answer.choices) == options["n"]
        for choice in answer.choices:
            assert is_of_schema(choice.message.content or "")
            assert choice.logprobs is not None
            assert "".join(each.token for each in choice.logprobs.content or ()).startswith("{")


@pytest.mark.parametrize(
    ("way", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_grammar": "root ::= ("}, "guided_grammar"),
        ({"guided_json": False}, "guided_json"),
        ({"guided_json": {"type": "object", "dependentSchemas": {"a": {}}}}, "guided_json"),
        ({"tools": [{"function": {"name": "f", "parameters": {"not": {}}}}], **REQUIRED}, "tools"),
    ],
    ids=str,
)  # fmt: skip
def test_what_can_not_be_obeyed_is_the_fault_of_its_field(client: OpenAI, way: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model="m", messages=QUESTION, extra_body=way)
    assert refused.value.param == param


def test_hostile_requests_stop_no_honest_one(server: Server) -> None:
    deep = '{"type":"object","properties":{"a":' * 90 + "{}" + "}}" * 90
    hostile: Any = [
        {"guided_regex": "((a{1,500}){1,500}){1,500}"},
        {"guided_regex": "(" * 5000 + "a" + ")" * 5000},
        {"guided_json": deep},
        {"guided_grammar": "root ::= " + "(root | " * 2000 + '"a"' + ")" * 2000},
        {"guided_json": {"enum": ["x" * 1_000_000]}},
    ]

    def ask(body: dict[str, Any]) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        body = {"model": "m", "messages": QUESTION, "max_tokens": 60, "temperature": 0, **body}
        return httpx.post(f"{server.api}/chat/completions", json=body, timeout=120), time.monotonic() - began

    honest = {"guided_json": SCHEMA}
    expected = ask(honest)[0].json()["choices"]
    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        attacks = [threads.submit(ask, body) for body in hostile]
        others = [threads.submit(ask, body) for body in [honest] * 4]
        assert [other.result()[0].json()["choices"] for other in others] == [expected] * 4
        assert {attack.result()[0].status_code for attack in attacks} <= {200, 400}
    assert ask(honest)[0].json()["choices"] == expected


def test_a_constraint_begins_behind_the_reasoning(thinker: Server) -> None:
    # A small model does not close its thinking by itself; with this bias it soon says the marker by chance.
    client = OpenAI(base_url=thinker.api, api_key="EMPTY", max_retries=0)
    marker = dict.fromkeys(tokens_of(client, "</think>"), 90)
    options: Any = {
        "guided_json": SCHEMA,
        "logit_bias": marker,
        "temperature": 2,
        "seed": 1,
        "max_tokens": 900,
    }
    [choice] = client.chat.completions.create(model="m", messages=QUESTION, extra_body=options).choices
    message: Any = choice.message
    assert is_of_schema(message.content)
    assert message.reasoning_content
    chunks: Any = client.chat.completions.create(
        model="m", messages=QUESTION, extra_body=options, stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == message.reasoning_content
