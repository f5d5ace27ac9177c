"""Request bodies made to break a server are rejected or served, and other requests are not affected."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from support.http_server import Server

from fllm.testing import Serve
from fllm.testing.echo import ECHO_PLUGIN, echo_model

USER = {"role": "user", "content": "Hi"}
DEEP = 10_000
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    model = echo_model(tmp_path_factory.mktemp("hostile") / "model")
    return serve(model, "--plugin", ECHO_PLUGIN, "--backend", "echo", "--tool-call-parser", "hermes")


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], "max_tokens": 2, **fields}).encode()


def chat_with(field: str, value: str) -> bytes:
    """Return a chat request with a field whose JSON text is given, valid or not."""
    return chat()[:-1] + f', "{field}": {value}}}'.encode()


def tool(parameters: str) -> str:
    return f'[{{"type": "function", "function": {{"name": "f", "parameters": {parameters}}}}}]'


def chat_content(content: str) -> bytes:
    message = f'{{"role": "user", "content": {content}}}'
    return f'{{"model": "m", "max_tokens": 2, "messages": [{message}]}}'.encode()


def chat_call(arguments: str) -> bytes:
    function = {"name": "f", "arguments": arguments}
    return chat(
        messages=[USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}, USER]
    )


NESTED = '{"a":' * DEEP + "1" + "}" * DEEP
LISTS = "[" * DEEP + "]" * DEEP

REJECTED: dict[str, tuple[bytes, int, str | None]] = {
    "invalid UTF-8": (chat_content('"')[:-4] + b'\xff\xfe"}]}', 400, None),
    "a surrogate in UTF-8": (chat_content('"')[:-4] + b'\xed\xa0\x80"}]}', 400, None),
    "UTF-16": (chat().decode().encode("utf-16"), 400, None),
    "a byte order mark": (b"\xef\xbb\xbf" + chat(), 400, None),
    "a lone surrogate": (chat_content(r'"\ud800"'), 400, None),
    "a lone surrogate inside text": (chat_content(r'"a\ud800b"'), 400, None),
    "swapped surrogates": (chat_content(r'"\udc00\ud800"'), 400, None),
    "a lone surrogate as a role": (chat_content('"x"').replace(b'"user"', rb'"\ud800"'), 400, None),
    "a lone surrogate as a tool": (chat_with("tools", tool("{}").replace('"f"', r'"\ud800"')), 400, None),
    "a role with NUL": (chat_content('"x"').replace(b'"user"', rb'"user\u0000"'), 400, "messages[0].role"),
    "a duplicate key, once invalid": (b'{"model": 5, ' + chat()[1:], 400, "model"),
    "only NUL": (b"\0" * 100, 400, None),
    "only white space": (b" \n", 400, None),
    "a list": (b"[]", 400, None),
    "two bodies": (chat() * 2, 400, None),
    "deep": (NESTED.encode(), 400, None),
    "deep lists": (LISTS.encode(), 400, None),
    "deep and unclosed": (b"[" * 100_000, 400, None),
    "deep parameters": (chat_with("tools", tool(NESTED)), 400, None),
    "deep variables of the template": (chat_with("chat_template_kwargs", NESTED), 400, None),
    "a deep schema": (chat_with("guided_json", NESTED), 400, None),
    "a deep schema as text": (chat(guided_json=NESTED), 400, "guided_json"),
    "a deep bias": (chat_with("logit_bias", NESTED), 400, None),
    "a deep unknown field": (chat_with("unknown", NESTED), 400, None),
    "beyond the range of floats": (chat_with("temperature", "1e400"), 400, None),
    "not a number": (chat_with("temperature", "NaN"), 400, None),
    "infinite": (chat_with("temperature", "-Infinity"), 400, None),
    "a temperature of 401 digits": (chat_with("temperature", str(10**400)), 400, None),
    "an infinite bias": (chat_with("logit_bias", '{"5": 1e400}'), 400, None),
    "n": (chat(n=10**9), 400, "n"),
    "n of 401 digits": (chat(n=10**400), 400, "n"),
    "seed": (chat(seed=2**64), 400, "seed"),
    "max_tokens": (chat(max_tokens=-(10**18)), 400, "max_tokens"),
    "max_tokens that is no integer": (chat(max_tokens=1e300), 400, "max_tokens"),
    "top_logprobs": (chat(logprobs=True, top_logprobs=10**6), 400, "top_logprobs"),
    "100,000 stop strings": (chat(stop=[f"s{i}" for i in range(100_000)]), 400, "stop"),
    "a stop string of 1 MB": (chat(stop="x" * 1_000_000), 400, "stop"),
    "100,000 biases": (chat(logit_bias=dict.fromkeys(map(str, range(100_000)), 1)), 400, "logit_bias"),
    "no messages": (chat(messages=[]), 400, "messages"),
    "a million values": (chat(user=[{}] * 2**20), 400, None),
    "60 MB of text": (chat(messages=[{"role": "user", "content": "a " * 30_000_000}]), 400, "messages"),
    "70 MB": (b" " * 70_000_000, 413, None),
}  # fmt: skip

ACCEPTED: dict[str, bytes] = {
    "max_tokens beyond the context": chat(max_tokens=10**18, stop=["e", "a", "i", "o"]),
    "minus zero": chat_with("temperature", "-0"),
    "a number that underflows": chat_with("temperature", "1e-400"),
    "a duplicate key": b'{"model": "other", "temperature": 1, "temperature": 2, ' + chat()[1:],
    "NUL in content": chat_content(r'"\u0000a"'),
    "a byte order mark in content": chat_content(r'"\ufeff"'),
    "a variable of 401 digits": chat(chat_template_kwargs={"a": 10**400}),
    "a schema of 401 digits": chat_with(
        "tools", tool(f'{{"properties": {{"a": {{"maximum": {10**400}}}}}}}')
    ),
    "arguments of 401 digits": chat_call(f'{{"a": {10**400}}}'),
    "a call of 900 levels": chat_with("tools", tool('{"a":' * 900 + "1" + "}" * 900)),
    "100,000 messages": chat(messages=[USER] * 100_000),
    "200 biases": chat(logit_bias=dict.fromkeys(map(str, range(200)), -100)),
    "n of 128": chat(n=128),
}


@contextmanager
def concurrent_stream(server: Server) -> Iterator[None]:
    """Keep a stream open that began before, and check that it completes."""
    body = chat(messages=[{"role": "user", "content": "x" * 2000}], max_tokens=2000, stream=True)
    with httpx.stream(
        "POST", f"{server.api}/chat/completions", content=body, headers=JSON, timeout=60
    ) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data:")
        yield
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert not any('"error"' in line for line in rest)


def post(server: Server, body: bytes, headers: dict[str, str] = JSON) -> httpx.Response:
    return httpx.post(f"{server.api}/chat/completions", content=body, headers=headers, timeout=120)


@pytest.mark.parametrize("name", REJECTED)
def test_a_body_is_rejected_with_the_error_envelope(name: str, server: Server) -> None:
    body, status, param = REJECTED[name]
    with concurrent_stream(server):
        response = post(server, body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, "invalid_request_error"), error
    assert error["message"]
    if param:
        assert error["param"] == param


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_body_is_accepted(name: str, server: Server) -> None:
    response = post(server, ACCEPTED[name])
    assert response.status_code == 200, response.text[:500]
    assert response.json()["choices"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json; charset=latin-1"},
        {},
    ],
    ids=str,
)
def test_a_content_type_other_than_plain_json_is_a_415(headers: dict[str, str], server: Server) -> None:
    body = gzip.compress(chat()) if "content-encoding" in headers else chat()
    response = post(server, body, headers)
    assert response.status_code == 415, response.text
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_no_body_caused_a_traceback(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert "Traceback" not in server.log()
