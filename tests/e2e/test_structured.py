"""Structured outputs of the embedded model, through the real server and OpenAI's client."""

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
def reasoning_server() -> Iterator[Server]:
    """Run a server with a reasoning parser."""
    with serving("--reasoning-parser", "deepseek_r1", "--max-model-len", "2048") as running:
        yield running


def matches_schema(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"large", "river"} and value["river"] in SCHEMA["properties"]["river"]["enum"]  # type: ignore[index]


def is_object(text: str) -> bool:
    return isinstance(json.loads(text), dict)


CONSTRAINTS: Any = [
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}},
        matches_schema,
    ),
    ({"structured_outputs": {"json": SCHEMA}}, matches_schema),
    ({"guided_json": json.dumps(SCHEMA)}, matches_schema),
    ({"response_format": {"type": "json_object"}, "max_tokens": 300}, is_object),
    ({"guided_regex": DIGITS}, lambda text: re.fullmatch(DIGITS, text)),
    ({"guided_choice": COLOUR}, COLOUR.__contains__),
    ({"guided_grammar": GRAMMAR}, lambda text: re.fullmatch("(Hello|Goodbye), [A-Z][a-z]{2,8}", text)),
]


def test_a_pydantic_model_is_parsed(client: OpenAI) -> None:
    response = client.chat.completions.parse(
        model="m", messages=QUESTION, response_format=City, temperature=0, max_tokens=300
    )
    [choice] = response.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, City)


@pytest.mark.parametrize(
    ("constraint", "is_satisfied"),
    CONSTRAINTS,
    ids=lambda value: next(iter(value), None) if isinstance(value, dict) else "",
)
def test_every_constraint_is_satisfied_streamed_and_not(
    client: OpenAI, constraint: Any, is_satisfied: Any
) -> None:
    options: dict[str, Any] = {"model": "m", "max_tokens": 100, "extra_body": constraint}
    for seed in range(3, 11):  # an object of any form is long with some seeds, others on each processor
        options["seed"] = seed
        chat = client.chat.completions.create(messages=QUESTION, **options).choices[0]
        text = client.completions.create(prompt="Paris is", **options).choices[0]
        if chat.finish_reason == text.finish_reason == "stop":
            break
    assert chat.finish_reason == text.finish_reason == "stop"
    assert is_satisfied(chat.message.content), chat.message.content
    chunks: Any = client.chat.completions.create(messages=QUESTION, stream=True, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == chat.message.content
    assert is_satisfied(text.text), text.text
    pieces: Any = client.completions.create(prompt="Paris is", stream=True, **options)
    assert "".join(piece.choices[0].text for piece in pieces) == text.text


def test_each_of_several_choices_satisfies_the_constraint(client: OpenAI) -> None:
    several: Any = {
        "model": "m",
        "messages": QUESTION,
        "logprobs": True,
        "extra_body": {"guided_json": SCHEMA},
    }
    for options in ({"n": 3}, {"n": 2, "extra_body": {"guided_json": SCHEMA, "best_of": 3}}):
        response = client.chat.completions.create(**{**several, **options})
        assert len(response.choices) == options["n"]
        for choice in response.choices:
            assert matches_schema(choice.message.content or "")
            assert choice.logprobs is not None
            assert "".join(each.token for each in choice.logprobs.content or ()).startswith("{")


@pytest.mark.parametrize(
    ("constraint", "param"),
    [
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_grammar": "root ::= ("}, "guided_grammar"),
        ({"guided_json": False}, "guided_json"),
        ({"guided_json": {"type": "object", "not": {"pattern": "a"}}}, "guided_json"),
        ({"tools": [{"function": {"name": "f", "parameters": {"not": {}}}}], **REQUIRED}, "tools"),
    ],
    ids=str,
)  # fmt: skip
def test_an_unsupported_constraint_is_a_400_that_names_the_field(
    client: OpenAI, constraint: Any, param: str
) -> None:
    with pytest.raises(BadRequestError) as error:
        client.chat.completions.create(model="m", messages=QUESTION, extra_body=constraint)
    assert error.value.param == param


def test_hostile_constraints_do_not_block_other_requests(server: Server) -> None:
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

    ordinary = {"guided_json": SCHEMA}
    expected = ask(ordinary)[0].json()["choices"]
    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        attacks = [threads.submit(ask, body) for body in hostile]
        others = [threads.submit(ask, body) for body in [ordinary] * 4]
        assert [other.result()[0].json()["choices"] for other in others] == [expected] * 4
        assert {attack.result()[0].status_code for attack in attacks} <= {200, 400}
    assert ask(ordinary)[0].json()["choices"] == expected


def test_a_constraint_begins_after_the_reasoning(reasoning_server: Server) -> None:
    # A small model does not close its reasoning by itself. With this bias it soon samples the marker.
    client = OpenAI(base_url=reasoning_server.api, api_key="EMPTY", max_retries=0)
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
    assert matches_schema(message.content)
    assert message.reasoning_content
    chunks: Any = client.chat.completions.create(
        model="m", messages=QUESTION, extra_body=options, stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == message.reasoning_content


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("budget", [0, 6])
def test_a_thinking_budget_ends_the_reasoning(
    reasoning_server: Server, budget: int, constrained: bool
) -> None:
    client = OpenAI(base_url=reasoning_server.api, api_key="EMPTY", max_retries=0)
    options: Any = {
        "thinking_token_budget": budget,
        "temperature": 0,
        "max_tokens": 60,
        "logprobs": True,
        **({"guided_json": SCHEMA} if constrained else {}),
    }
    whole = client.chat.completions.create(model="m", messages=QUESTION, extra_body=options)
    [choice] = whole.choices
    message: Any = choice.message
    assert message.content
    assert not constrained or matches_schema(message.content)
    assert whole.usage is not None
    assert whole.usage.completion_tokens_details is not None
    assert whole.usage.completion_tokens_details.reasoning_tokens == budget
    assert choice.logprobs is not None
    tokens = [entry.token for entry in choice.logprobs.content or ()]
    assert "".join(tokens[budget:]).startswith("</think>")
    assert all(entry.logprob < 0 for entry in choice.logprobs.content or ())
    chunks: Any = client.chat.completions.create(
        model="m", messages=QUESTION, extra_body=options, stream=True
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert reasoning == (getattr(message, "reasoning_content", None) or "")
