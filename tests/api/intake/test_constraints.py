"""Structured-output fields of a request reach the backend as a constraint, or are a clear 400."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from support.api_fakes import FakeReasoningParser, a_server, ask, backend_of, chat, complete, error_of

from fllm.constraints import (
    ANY_OBJECT,
    AnyOf,
    Concat,
    Constraint,
    ConstString,
    Grammar,
    JsonSchema,
    Regex,
    TextUntil,
)
from fllm.errors import BackendError, RequestError
from fllm.events import ParserEvent
from fllm.requests.chat import ChatRequest
from fllm.values import ModelCard
from fllm_api.app_state import AppState
from fllm_api.intake.constraints import (
    MAX_CONSTRAINT_CHARS,
    MAX_SCHEMA_DEPTH,
    check_constraint_supported,
)

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TEXT = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'


def structured_output_server(**parts: Any) -> AppState:
    return a_server(card={"grammar": "fake"}, **parts)


SERVER = structured_output_server()


def json_schema(schema: object, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


def constraints_of(server: AppState, response: httpx.Response) -> list[Constraint | None]:
    assert response.status_code == 200, response.text
    prompts = backend_of(server).prompts
    constraints = [prompt.constraint for prompt in prompts]
    prompts.clear()
    return constraints


def rejected(response: httpx.Response, param: str | None) -> str:
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, param), error
    message: str = error["message"]
    return message


@pytest.mark.parametrize(
    ("body", "constraint"),
    [
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, JsonSchema(TEXT)),
        (
            {"response_format": {"type": "json_object", "schema": {"properties": {"a": {}}}}},
            JsonSchema('{"type":"object","properties":{"a":{}}}'),
        ),
        ({"response_format": {"type": "json_object", "schema": {}}}, ANY_OBJECT),
        ({"response_format": {"type": "json_object", "schema": None}}, ANY_OBJECT),
        ({"response_format": {"type": "json_object", "schema": True}}, ANY_OBJECT),
        ({"response_format": {"type": "json_schema", "schema": SCHEMA}}, JsonSchema(TEXT)),
        ({}, None),
        ({"response_format": None, "guided_json": None, "structured_outputs": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"structured_outputs": {}}, None),
        ({"structured_outputs": {"json_object": False}}, None),
        ({"response_format": {"type": "json_object"}}, ANY_OBJECT),
        ({"structured_outputs": {"json_object": True}}, ANY_OBJECT),
        ({"response_format": json_schema(SCHEMA)}, JsonSchema(TEXT)),
        ({"response_format": json_schema(SCHEMA, strict=False, description="d")}, JsonSchema(TEXT)),
        ({"response_format": json_schema(True)}, JsonSchema("true")),
        ({"structured_outputs": {"json": SCHEMA}}, JsonSchema(TEXT)),
        ({"structured_outputs": {"json": TEXT}}, JsonSchema(TEXT)),
        ({"guided_json": SCHEMA}, JsonSchema(TEXT)),
        ({"guided_json": json.dumps(SCHEMA, indent=2)}, JsonSchema(TEXT)),
        ({"guided_json": False}, JsonSchema("false")),
        ({"guided_json": {"maximum": 10**30}}, JsonSchema(f'{{"maximum":{10**30}}}')),
        ({"structured_outputs": {"regex": "a+"}}, Regex("a+")),
        ({"guided_regex": "a+"}, Regex("a+")),
        ({"structured_outputs": {"choice": ["a", "b", "a"]}}, AnyOf((ConstString("a"), ConstString("b")))),
        ({"guided_choice": ["a"]}, AnyOf((ConstString("a"),))),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, Grammar('root ::= "a"')),
        ({"guided_grammar": 'root ::= "a"'}, Grammar('root ::= "a"')),
    ],
    ids=str,
)
@pytest.mark.parametrize("send", [chat, complete])
def test_every_field_reaches_the_backend(send: Any, body: dict[str, Any], constraint: Constraint) -> None:
    assert constraints_of(SERVER, send(SERVER, **body)) == [constraint]
    assert constraints_of(SERVER, send(SERVER, **body, stream=True)) == [constraint]


def test_every_choice_is_constrained() -> None:
    assert constraints_of(SERVER, chat(SERVER, n=3, guided_regex="a")) == [Regex("a")] * 3
    assert (
        constraints_of(SERVER, chat(SERVER, best_of=2, guided_regex="a", logprobs=True)) == [Regex("a")] * 2
    )
    assert constraints_of(SERVER, complete(SERVER, prompt=["x", "y"], guided_regex="a")) == [Regex("a")] * 2


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": "json_object"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": json_schema("{}")}, "response_format.json_schema.schema"),
        ({"response_format": json_schema([])}, "response_format.json_schema.schema"),
        ({"structured_outputs": "x"}, "structured_outputs"),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "no JSON"}}, "structured_outputs.json"),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        ({"guided_json": "[]"}, "guided_json"),
        ({"guided_json": '{"a": "\\ud800"}'}, "guided_json"),
        ({"guided_json": []}, "guided_json"),
        ({"guided_regex": ""}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_choice": [""]}, "guided_choice[0]"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_grammar": {}}, "guided_grammar"),
        ({"guided_json": {}, "use_beam_search": True, "best_of": 2}, "use_beam_search"),
        ({"guided_json": {"a": "x" * MAX_CONSTRAINT_CHARS}}, "guided_json"),
        ({"guided_json": '"' + "x" * MAX_CONSTRAINT_CHARS}, "guided_json"),
        ({"guided_regex": "x" * (MAX_CONSTRAINT_CHARS + 1)}, "guided_regex"),
        ({"guided_grammar": "x" * (MAX_CONSTRAINT_CHARS + 1)}, "guided_grammar"),
        ({"guided_choice": ["x" * MAX_CONSTRAINT_CHARS, "y"]}, "guided_choice"),
    ],
    ids=lambda value: str(value)[:80],
)
@pytest.mark.parametrize("send", [chat, complete])
def test_an_invalid_constraint_names_the_field(send: Any, body: dict[str, Any], param: str) -> None:
    rejected(send(SERVER, **body), param)
    assert backend_of(SERVER).prompts == []


@pytest.mark.parametrize(
    "body",
    [
        {"guided_json": {}, "guided_regex": "a"},
        {"structured_outputs": {"json": {}, "regex": "a"}},
        {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
        {"response_format": json_schema({}), "guided_choice": ["a"]},
    ],
    ids=str,
)
@pytest.mark.parametrize("send", [chat, complete])
def test_two_constraints_are_rejected_with_both_names(send: Any, body: dict[str, Any]) -> None:
    message = rejected(send(SERVER, **body), error_of(send(SERVER, **body))["param"])
    assert message.count("`") == 4
    assert all(name.partition("_")[0] in message for name in body)


@pytest.mark.parametrize("levels", [MAX_SCHEMA_DEPTH + 1, 900, 5_000, 100_000])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_schema_nested_too_deeply_is_rejected(levels: int, as_text: bool) -> None:
    schema = '{"not":' * levels + "{}" + "}" * levels
    value = json.dumps(schema) if as_text else schema
    body = f'{{"model": "m", "prompt": "x", "guided_json": {value}}}'
    headers = {"content-type": "application/json"}
    response = ask(SERVER, "POST", "/v1/completions", content=body.encode(), headers=headers)
    assert response.status_code == 400, response.text


def test_a_schema_may_be_nested_up_to_the_limit() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_SCHEMA_DEPTH - 1):
        schema = {"not": schema}
    assert constraints_of(SERVER, complete(SERVER, guided_json=schema))
    rejected(complete(SERVER, guided_json={"not": {"not": schema}}), "guided_json")


@pytest.mark.parametrize("send", [chat, complete])
def test_without_a_grammar_backend_the_error_says_how_to_enable_it(send: Any) -> None:
    server = a_server()
    message = rejected(send(server, response_format={"type": "json_object"}), "response_format")
    assert "grammar" in message
    assert send(server, response_format={"type": "text"}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_constraint_that_the_backend_rejects_is_an_error_of_its_field(stream: bool) -> None:
    server = structured_output_server()
    backend = backend_of(server)
    backend.fails_after, backend.failure = 0, RequestError("`not` is not supported", code="c")
    error = error_of(chat(server, response_format=json_schema({"not": {}}), stream=stream))
    assert (error["message"], error["param"], error["code"]) == (
        "`not` is not supported",
        "response_format.json_schema.schema",
        "c",
    )
    rejected(chat(server, stream=stream), None)
    backend.failure = RequestError("no", param="seed")
    rejected(chat(server, guided_json={}, stream=stream), "seed")


def test_a_grammar_backend_that_fails_is_a_server_error(caplog: pytest.LogCaptureFixture) -> None:
    server = structured_output_server()
    backend_of(server).fails_after, backend_of(server).failure = 1, BackendError("it took too long")
    assert chat(server, guided_json={}).status_code == 500
    assert caplog.records


class ReasoningFirst(FakeReasoningParser):
    """A reasoning parser that declares a constraint and accepts only matching text."""

    def feed(self, text: str) -> Iterator[ParserEvent]:
        assert self.context.constrained
        return super().feed(text)

    def constrain_output(self, content: Constraint) -> Constraint:
        opened = ConstString("thinking ") if self.context.prompt.endswith("<assistant>") else ConstString("")
        return Concat((opened, TextUntil("|"), content))


def test_a_constraint_applies_after_the_reasoning() -> None:
    server = structured_output_server(words=["Hm|", "{}"], reasoning=ReasoningFirst)
    response = chat(server, guided_json={})
    assert response.json()["choices"][0]["message"] == {
        "role": "assistant",
        "reasoning_content": "Hm",
        "content": "{}",
    }
    expected = Concat((ConstString("thinking "), TextUntil("|"), JsonSchema("{}")))
    assert constraints_of(server, response) == [expected]
    last = {"messages": [{"role": "assistant", "content": "Hi"}], "continue_final_message": True}
    expected = Concat((ConstString(""), TextUntil("|"), JsonSchema("{}")))
    assert constraints_of(server, chat(server, guided_json={}, **last)) == [expected]


def test_completions_ignore_the_reasoning_parser() -> None:
    server = structured_output_server(reasoning=ReasoningFirst)
    assert constraints_of(server, complete(server, guided_json={})) == [JsonSchema("{}")]


@pytest.mark.parametrize("stream", [False, True])
def test_a_reasoning_parser_that_can_not_constrain_output_is_named(stream: bool) -> None:
    server = structured_output_server(reasoning=FakeReasoningParser)
    assert "reasoning parser" in rejected(chat(server, guided_json={}, stream=stream), "guided_json")
    assert chat(server, stream=stream).status_code == 200


def test_a_server_without_the_grammar_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    body = msgspec.convert({"messages": [{"role": "user", "content": "hi"}]}, ChatRequest)
    card = ModelCard(tokenizer="", max_model_len=8)
    with pytest.raises(RequestError) as installed:
        check_constraint_supported(body, card, "response_format")
    assert "pip install" not in installed.value.message
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(RequestError) as caught:
        check_constraint_supported(body, card, "response_format")
    assert "such as torch (pip install 'furiosa-llm-server[torch]')" in caught.value.message
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_parameter")
