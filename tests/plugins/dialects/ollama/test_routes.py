"""Ollama's API over ASGI, on a backend with a script."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest
from support.api_fakes import FakeReasoningParser, FakeToolCallParser, a_server, ask, backend_of, chat
from support.dialect_servers import a_dialect_server, dialect_plugins
from support.pooling_fakes import EMBEDS, FakePoolingBackend

from fllm import ImageSupport
from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import ParserChoice
from fllm_dialects.ollama import routes

SERVER = a_dialect_server("ollama")
HI: Any = [{"role": "user", "content": "Hi"}]
STATISTICS = {
    *("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"),
    *("prompt_eval_count", "eval_count"),
}


def post(path: str, server: Any = SERVER, **body: Any) -> httpx.Response:
    return ask(server, "POST", path, json={"model": "m", **body})


def whole(path: str, server: Any = SERVER, **body: Any) -> Any:
    response = post(path, server, stream=False, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def lines(path: str, server: Any = SERVER, **body: Any) -> list[dict[str, Any]]:
    response = post(path, server, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    assert response.text.endswith("\n")
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_chat_is_a_stream_of_lines_whose_last_has_statistics() -> None:
    *pieces, last = lines("/api/chat", messages=HI)
    assert [piece["message"] for piece in pieces] == [
        {"role": "assistant", "content": text} for text in ("Hello", " world", "!")
    ]
    for piece in pieces:
        assert set(piece) == {"model", "created_at", "message", "done"}
        assert (piece["model"], piece["done"], piece["created_at"][-1]) == ("org/fake", False, "Z")
    assert set(last) == {"model", "created_at", "message", "done", "done_reason"} | STATISTICS
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert last["message"] == {"role": "assistant", "content": ""}
    assert last["eval_count"] == 4
    assert last["prompt_eval_count"] == len("<user>Hi<assistant>")
    parts = last["load_duration"] + last["prompt_eval_duration"] + last["eval_duration"]
    assert parts == pytest.approx(last["total_duration"], abs=10)
    assert last["total_duration"] > 0


def test_a_whole_response_is_the_sum_of_the_lines() -> None:
    found = whole("/api/chat", messages=HI)
    assert found["message"] == {"role": "assistant", "content": "Hello world!"}
    assert found["done"] is True
    found = whole("/api/generate", prompt="Hi")
    assert found["response"] == "Hello world!"
    assert set(found) >= STATISTICS
    assert "".join(line["response"] for line in lines("/api/generate", prompt="Hi")) == "Hello world!"


def test_an_output_that_is_cut_off_says_so() -> None:
    found = whole("/api/generate", prompt="Hi", options={"num_predict": 2})
    assert (found["response"], found["done_reason"], found["eval_count"]) == ("Hello world", "length", 2)


def test_a_prompt_is_a_message_unless_it_is_raw() -> None:
    server = a_dialect_server("ollama")
    for body in ({"system": "S", "prompt": "P"}, {"raw": True, "prompt": "P"}):
        whole("/api/generate", server, **body)
    rendered, raw = (
        server.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        for prompt in backend_of(server).prompts
    )
    assert (rendered, raw) == ("<system>S<user>P<assistant>", "P")


def test_reasoning_is_thinking() -> None:
    server = a_server(["hm", "|", "yes"], reasoning=FakeReasoningParser, plugins=dialect_plugins("ollama"))
    assert whole("/api/chat", server, messages=HI)["message"] == {
        "role": "assistant",
        "content": "yes",
        "thinking": "hm",
    }
    found = whole("/api/generate", server, prompt="Hi")
    assert (found["thinking"], found["response"]) == ("hm", "yes")
    assert [line["message"].get("thinking") for line in lines("/api/chat", server, messages=HI)] == [
        *("hm", None, None)
    ]


def test_each_tool_call_is_one_line_with_an_object() -> None:
    words = ["[f:", '{"x"', ": 1}", "]", "[g:]", "so", '[h:{"cut']
    server = a_server(words, tools=FakeToolCallParser, plugins=dialect_plugins("ollama"))
    tools = [{"type": "function", "function": {"name": name}} for name in "fgh"]
    messages = [line["message"] for line in lines("/api/chat", server, messages=HI, tools=tools)]
    calls = [message["tool_calls"] for message in messages if "tool_calls" in message]
    assert [[call["function"] for call in each] for each in calls] == [
        [{"name": "f", "arguments": {"x": 1}, "index": 0}],
        [{"name": "g", "arguments": {}, "index": 1}],
    ]
    assert all(call["id"].startswith("call_") for each in calls for call in each)
    assert "".join(message["content"] for message in messages) == 'so{"cut'
    found = whole("/api/chat", server, messages=HI, tools=tools)
    assert (len(found["message"]["tool_calls"]), found["done_reason"]) == (2, "stop")


def test_log_probabilities_come_with_their_text() -> None:
    found = lines("/api/chat", messages=HI, logprobs=True, top_logprobs=1)
    assert found[0]["logprobs"] == [
        {
            "token": "Hello",
            "logprob": -0.25,
            "bytes": list(b"Hello"),
            "top_logprobs": [{"token": "Hello", "logprob": -0.25, "bytes": list(b"Hello")}],
        }
    ]
    total = [entry["token"] for line in found for entry in line.get("logprobs", ())]
    assert total == [
        entry["token"] for entry in whole("/api/generate", prompt="x", logprobs=True)["logprobs"]
    ]


def test_many_log_probabilities_are_converted_in_pieces() -> None:
    server = a_dialect_server("ollama", words=["a"] * 200)
    found = whole("/api/chat", server, messages=HI, logprobs=True)
    assert [entry["token"] for entry in found["logprobs"]][:-1] == ["a"] * 200


@pytest.mark.parametrize(
    ("path", "keep_alive", "reason"),
    [("/api/generate", None, "load"), ("/api/chat", "5m", "load"), ("/api/generate", 0, "unload")],
)
def test_a_request_without_a_prompt_loads_the_model(path: str, keep_alive: Any, reason: str) -> None:
    found = whole(path, keep_alive=keep_alive)
    assert (found["done"], found["done_reason"]) == (True, reason)
    assert found["response"] == "" if path == "/api/generate" else found["message"]["content"] == ""


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
def test_a_body_is_json_whatever_its_content_type(headers: dict[str, str]) -> None:
    content = json.dumps({"model": "m", "messages": HI, "stream": False})
    response = ask(SERVER, "POST", "/api/chat", content=content, headers=headers)
    assert response.status_code == 200
    page = {**headers, "origin": "https://example.org"}
    response = ask(SERVER, "POST", "/api/chat", content=content, headers=page)
    assert (response.status_code, set(response.json())) == (415, {"error"})


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/chat", {"messages": HI, "options": {"temperature": -1}}, "`options.temperature`"),
        ("/api/chat", {"messages": HI, "options": {"stop": ["x" * 2000]}}, "`options.stop"),
        ("/api/chat", {"messages": HI, "format": "yaml"}, "`format`"),
        ("/api/chat", {"messages": [{"role": "user", "content": 5}]}, "`messages[0].content`"),
        ("/api/chat", {"messages": [{"role": "user", "images": ["%"]}]}, "image"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "`suffix`"),
        ("/api/generate", {"prompt": "x" * 600}, "maximum context length is 512"),
        ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}"}, "`template`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_are_one_line(path: str, body: dict[str, Any], words: str) -> None:
    response = post(path, **body)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error"}
    assert words in response.json()["error"]


def test_a_stream_that_fails_ends_with_an_error() -> None:
    server = a_dialect_server("ollama")
    backend_of(server).fails_after = 1
    response = post("/api/chat", server, messages=HI)
    first, last = map(json.loads, response.text.splitlines())
    assert first["message"]["content"] == "Hello"
    assert set(last) == {"error"}


def test_models_are_described() -> None:
    runtime = {"architecture": "llama", "dtype": "bfloat16", "device": "cuda:0"}
    server = a_dialect_server("ollama", card={"runtime": runtime, "artifact_id": "abc"})
    [listed] = ask(server, "GET", "/api/tags").json()["models"]
    assert (listed["name"], listed["model"], len(listed["digest"])) == ("org/fake", "org/fake", 64)
    assert listed["modified_at"] == "2023-11-14T22:13:20.000000Z"
    assert (listed["details"]["family"], listed["details"]["quantization_level"]) == ("llama", "bfloat16")
    [running] = ask(server, "GET", "/api/ps").json()["models"]
    assert running["context_length"] == 512
    shown = post("/api/show", server, model="org/fake:latest").json()
    assert shown["model_info"]["llama.context_length"] == 512
    assert shown["capabilities"] == ["completion", "tools"]
    thinks = a_dialect_server(
        "ollama",
        card={"images": ImageSupport("<image>")},
        parser_choices={"reasoning_parser": ParserChoice("qwen3", selected_by="auto")},
    )
    capabilities = post("/api/show", thinks, model="org/fake").json()["capabilities"]
    assert capabilities == ["completion", "tools", "thinking", "vision"]
    missing = post("/api/show", server, model="other")
    assert (missing.status_code, missing.json()) == (404, {"error": "model 'other' not found"})


def test_embeddings_are_those_of_the_pooling_endpoint() -> None:
    server = a_server(
        plugins=dialect_plugins("ollama", "pooling"),
        card={"pooling": EMBEDS, "max_model_len": 4},
        backend=FakePoolingBackend(3),
    )
    found = post("/api/embed", server, input=["ab", "abcdefgh"]).json()
    assert [vector[0] for vector in found["embeddings"]] == [2.0, 4.0]
    assert (found["model"], found["prompt_eval_count"]) == ("org/fake", 6)
    assert post("/api/embeddings", server, prompt="abc").json()["embedding"][0] == 3.0
    for nothing in ([], ""):
        assert post("/api/embed", server, input=nothing).json()["embeddings"] == []
    assert post("/api/embeddings", server, prompt="").json() == {"embedding": []}
    too_long = post("/api/embed", server, input="abcdefgh", truncate=False)
    assert (too_long.status_code, set(too_long.json())) == (400, {"error"})
    generates = post("/api/embed", a_dialect_server("ollama", "pooling"), input="a")
    assert (generates.status_code, set(generates.json())) == (400, {"error"})


@pytest.mark.parametrize("path", ["/api/version", "/api/tags", "/api/ps"])
def test_descriptions_need_a_key(path: str) -> None:
    server = a_dialect_server("ollama", config={"keys": ApiKeys(("k",))})
    response = ask(server, "GET", path)
    assert (response.status_code, type(response.json()["error"])) == (401, str)


def test_chats_of_openai_are_not_changed() -> None:
    assert chat(SERVER).json()["choices"][0]["message"]["content"] == "Hello world!"


@pytest.mark.parametrize(
    ("path", "reader", "body"),
    [
        ("/api/chat", "read_chat", {"messages": [{"role": "user", "content": "x" * 5000}]}),
        ("/api/generate", "read_generate", {"prompt": "x" * 5000}),
    ],
)
def test_a_large_request_is_not_read_on_the_event_loop(
    path: str, reader: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    read = getattr(routes, reader)

    def recorded(data: Any) -> Any:
        threads.append(threading.current_thread())
        return read(data)

    monkeypatch.setattr(routes, reader, recorded)
    server = a_dialect_server("ollama", card={"max_model_len": 8192})
    whole(path, server, **body)
    assert threads != [threading.current_thread()]
    assert len(threads) == 1
