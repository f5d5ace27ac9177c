"""Schemas that clients send, through the real server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support.generated_schemas import MCP_TOOLS, validator
from support.http_server import Server

INT: Any = {"type": "integer"}
STR: Any = {"type": "string"}
ZOD_INT: Any = {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}
ZOD_UUID = (
    "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
)
SCHEMAS: dict[str, Any] = {
    "Zod's integer": ZOD_INT,
    "a bound beyond 64 bits": {"type": "integer", "maximum": 100000000000000000000},
    "any names": {"type": "object", "propertyNames": STR, "additionalProperties": INT},
    "listed names": {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": INT},
    "a format and a pattern": {"type": "string", "format": "uuid", "pattern": ZOD_UUID},
    "Pydantic's HttpUrl": {"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083},
    **{f"the format {name}": {"type": "string", "format": name} for name in ("uuid4", "password", "base64")},
    "a set": {"type": "array", "uniqueItems": True, "items": STR},
    "multiples": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 10},
    "Decimal": {
        "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}]
    },
    "default tags": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"t": {"const": "a", "default": "a", "type": "string"}, "x": INT},
            },
            {"type": "object", "properties": {"t": {"const": "b", "default": "b", "type": "string"}}},
        ],
        "discriminator": {"propertyName": "t"},
    },
}
UNSUPPORTED: Any = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "string", "pattern": r"(a)\1"}}},
    "required": ["a"],
    "additionalProperties": False,
}


def ask(server: Server, **body: Any) -> httpx.Response:
    message = {"role": "user", "content": "Call the tool."}
    payload = {"model": "m", "messages": [message], "temperature": 0, "max_tokens": 150, **body}
    payload["model"] = httpx.get(f"{server.api}/models").json()["data"][0]["id"]
    return httpx.post(f"{server.api}/chat/completions", json=payload, timeout=120)


def a_tool(parameters: Any, **more: Any) -> Any:
    return {"type": "function", "function": {"name": "read", "parameters": parameters, **more}}


def in_object(schema: Any) -> Any:
    return {"type": "object", "properties": {"v": schema}, "required": ["v"], "additionalProperties": False}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_an_answer_satisfies_the_schema(server: Server, schema: Any) -> None:
    wrapped = in_object(schema)
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": wrapped}}
    response = ask(server, response_format=form)
    assert response.status_code == 200, response.text
    [choice] = response.json()["choices"]
    if choice["finish_reason"] == "stop":
        validator(wrapped).validate(json.loads(choice["message"]["content"]))


@pytest.mark.parametrize("strict", [True, False])
def test_the_arguments_of_a_call_satisfy_the_schema(server: Server, strict: bool) -> None:
    parameters = in_object(ZOD_INT)
    response = ask(
        server, tools=[a_tool(parameters, strict=strict)], tool_choice="required", parallel_tool_calls=False
    )
    assert response.status_code == 200, response.text
    [call] = response.json()["choices"][0]["message"]["tool_calls"]
    validator(parameters).validate(json.loads(call["function"]["arguments"]))


@pytest.mark.parametrize("parameters", MCP_TOOLS.values(), ids=MCP_TOOLS)
def test_tools_of_an_mcp_server_can_be_forced(server: Server, parameters: Any) -> None:
    response = ask(server, tools=[a_tool(parameters)], tool_choice="required", max_tokens=20)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    "parameters",
    [
        UNSUPPORTED,
        {"type": "object", "properties": {"a": {"type": "date"}}, "required": ["a"]},
        {"type": "object", "patternProperties": {"a": INT, "b": STR}},
        {"type": "object", "properties": 5},
    ],
    ids=["a pattern", "a type", "patterns that overlap", "no schema"],
)
def test_the_schema_of_a_tool_that_is_not_strict_never_fails_a_request(
    server: Server, parameters: Any
) -> None:
    for choice in ("auto", "required"):
        response = ask(server, tools=[a_tool(parameters)], tool_choice=choice, max_tokens=40)
        assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "read"


def test_a_refusal_says_which_keyword_and_where(server: Server) -> None:
    tools = [a_tool(UNSUPPORTED, strict=True)]
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": UNSUPPORTED}}
    for body, param in (
        ({"tools": tools, "tool_choice": "required"}, "tools"),
        ({"response_format": form}, "response_format.json_schema.schema"),
    ):
        response = ask(server, **body)
        error = response.json()["error"]
        assert (response.status_code, error["param"], error["code"]) == (400, param, "unsupported_schema")
        assert "'pattern' in '#/properties/a/items'" in error["message"]
        assert "back references" in error["message"]
