"""Bodies that are made to break a server: refused in the envelope, or answered; others notice nothing."""

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


def written(field: str, value: str) -> bytes:
    """A chat in which this field is written so, whatever Python thinks of it."""
    return chat()[:-1] + f', "{field}": {value}}}'.encode()


def tool(parameters: str) -> str:
    return f'[{{"type": "function", "function": {{"name": "f", "parameters": {parameters}}}}}]'


def said(content: str) -> bytes:
    message = f'{{"role": "user", "content": {content}}}'
    return f'{{"model": "m", "max_tokens": 2, "messages": [{message}]}}'.encode()


def called(arguments: str) -> bytes:
    function = {"name": "f", "arguments": arguments}
    return chat(
        messages=[USER, {"role": "assistant", "tool_calls": [{"id": "1", "function": function}]}, USER]
    )


NESTED = '{"a":' * DEEP + "1" + "}" * DEEP
LISTS = "[" * DEEP + "]" * DEEP
DEEPEST_PARAM = "messages[1].tool_calls[0].function.arguments"

REFUSED: dict[str, tuple[bytes, int, str | None]] = {
    "no UTF-8": (said('"')[:-4] + b'\xff\xfe"}]}', 400, None),
    "half a pair in UTF-8": (said('"')[:-4] + b'\xed\xa0\x80"}]}', 400, None),
    "UTF-16": (chat().decode().encode("utf-16"), 400, None),
    "a mark of byte order": (b"\xef\xbb\xbf" + chat(), 400, None),
    "half a pair": (said(r'"\ud800"'), 400, None),
    "half a pair within": (said(r'"a\ud800b"'), 400, None),
    "halves the wrong way round": (said(r'"\udc00\ud800"'), 400, None),
    "half a pair as a role": (said('"x"').replace(b'"user"', rb'"\ud800"'), 400, None),
    "half a pair as a tool's name": (written("tools", tool("{}").replace('"f"', r'"\ud800"')), 400, None),
    "a role with NUL": (said('"x"').replace(b'"user"', rb'"user\u0000"'), 400, "messages[0].role"),
    "a key twice, once wrong": (b'{"model": 5, ' + chat()[1:], 400, "model"),
    "only NUL": (b"\0" * 100, 400, None),
    "only white space": (b" \n", 400, None),
    "a list": (b"[]", 400, None),
    "two bodies": (chat() * 2, 400, None),
    "deep": (NESTED.encode(), 400, None),
    "deep lists": (LISTS.encode(), 400, None),
    "deep, and without an end": (b"[" * 100_000, 400, None),
    "deep parameters": (written("tools", tool(NESTED)), 400, None),
    "deep variables of the template": (written("chat_template_kwargs", NESTED), 400, None),
    "a deep schema": (written("guided_json", NESTED), 400, None),
    "a deep schema as text": (chat(guided_json=NESTED), 400, "guided_json"),
    "a deep bias": (written("logit_bias", NESTED), 400, None),
    "a deep field that is unknown": (written("unknown", NESTED), 400, None),
    "deep arguments": (called(NESTED), 400, DEEPEST_PARAM),
    "arguments with NaN": (called('{"a": NaN}'), 400, DEEPEST_PARAM),
    "beyond floating point": (written("temperature", "1e400"), 400, None),
    "not a number": (written("temperature", "NaN"), 400, None),
    "infinite": (written("temperature", "-Infinity"), 400, None),
    "a temperature of 401 digits": (written("temperature", str(10**400)), 400, None),
    "an infinite bias": (written("logit_bias", '{"5": 1e400}'), 400, None),
    "n": (chat(n=10**9), 400, "n"),
    "n of 401 digits": (chat(n=10**400), 400, "n"),
    "seed": (chat(seed=2**64), 400, "seed"),
    "max_tokens": (chat(max_tokens=10**18), 400, "max_tokens"),
    "max_tokens beyond the context": (chat(max_tokens=10**9), 400, "messages"),
    "top_logprobs": (chat(logprobs=True, top_logprobs=10**6), 400, "top_logprobs"),
    "100,000 stop strings": (chat(stop=[f"s{i}" for i in range(100_000)]), 400, "stop"),
    "a stop string of 1 MB": (chat(stop="x" * 1_000_000), 400, "stop"),
    "100,000 biases": (chat(logit_bias=dict.fromkeys(map(str, range(100_000)), 1)), 400, "logit_bias"),
    "no messages": (chat(messages=[]), 400, "messages"),
    "a million values": (chat(user=[{}] * 2**20), 400, None),
    "60 MB of text": (chat(messages=[{"role": "user", "content": "a " * 30_000_000}]), 400, "messages"),
    "70 MB": (b" " * 70_000_000, 413, None),
}  # fmt: skip

ANSWERED: dict[str, bytes] = {
    "minus zero": written("temperature", "-0"),
    "the least number": written("temperature", "1e-400"),
    "a key twice": b'{"model": "other", "temperature": 1, "temperature": 2, ' + chat()[1:],
    "NUL in content": said(r'"\u0000a"'),
    "a mark of byte order in content": said(r'"\ufeff"'),
    "a variable of 401 digits": chat(chat_template_kwargs={"a": 10**400}),
    "a schema of 401 digits": written("tools", tool(f'{{"properties": {{"a": {{"maximum": {10**400}}}}}}}')),
    "arguments of 401 digits": called(f'{{"a": {10**400}}}'),
    "a call of 900 levels": written("tools", tool('{"a":' * 900 + "1" + "}" * 900)),
    "100,000 messages": chat(messages=[USER] * 100_000),
    "200 biases": chat(logit_bias=dict.fromkeys(map(str, range(200)), -100)),
    "n of 128": chat(n=128),
}


@contextmanager
def stream_beside(server: Server) -> Iterator[None]:
    """A stream that has begun before, and must end well after."""
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


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_the_envelope(name: str, server: Server) -> None:
    body, status, param = REFUSED[name]
    with stream_beside(server):
        answer = post(server, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (status, "invalid_request_error"), error
    assert error["message"]
    if param:
        assert error["param"] == param


@pytest.mark.parametrize("name", ANSWERED)
def test_it_is_answered(name: str, server: Server) -> None:
    answer = post(server, ANSWERED[name])
    assert answer.status_code == 200, answer.text[:500]
    assert answer.json()["choices"]


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
def test_what_is_not_said_to_be_plain_json_is_a_415(headers: dict[str, str], server: Server) -> None:
    body = gzip.compress(chat()) if "content-encoding" in headers else chat()
    answer = post(server, body, headers)
    assert answer.status_code == 415, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_nothing_of_all_this_is_our_own_fault(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert "Traceback" not in server.log()
