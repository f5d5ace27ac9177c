"""Fields of vLLM's API, with the embedded model in the real server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from support.http_server import Server

PROMPT = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 8}
QUESTION = {"messages": [{"role": "user", "content": "Name a colour."}], "temperature": 0, "max_tokens": 8}


def post(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = httpx.post(f"{server.api}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


def stream(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    text = httpx.post(f"{server.api}{path}", json={**body, "stream": True}, timeout=60).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_bad_words_do_not_occur(server: Server) -> None:
    text = post(server, "/completions", PROMPT)["choices"][0]["text"]
    word = text.split()[0].strip(".,")
    without = post(server, "/completions", {**PROMPT, "bad_words": [word]})["choices"][0]["text"]
    assert word in text
    assert word not in without
    chunks = stream(server, "/completions", {**PROMPT, "bad_words": [word]})
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == without


def test_only_allowed_tokens_occur(server: Server) -> None:
    ids = post(server, "/completions", {**PROMPT, "return_token_ids": True})["choices"][0]["token_ids"]
    body = {**PROMPT, "return_token_ids": True, "allowed_token_ids": ids[:2], "temperature": 1}
    assert {*post(server, "/completions", body)["choices"][0]["token_ids"]} <= {*ids[:2]}


@pytest.mark.parametrize(("path", "body"), [("/completions", PROMPT), ("/chat/completions", QUESTION)])
def test_token_ids_and_log_probabilities_of_the_prompt(
    server: Server, path: str, body: dict[str, Any]
) -> None:
    body = {**body, "return_token_ids": True, "prompt_logprobs": 1}
    whole = post(server, path, body)
    chunks = stream(server, path, body)
    [choice] = whole["choices"]
    about_prompt = whole if "prompt_token_ids" in whole else choice
    first = chunks[0] if about_prompt is whole else chunks[0]["choices"][0]
    assert about_prompt["prompt_token_ids"] == first["prompt_token_ids"]
    assert len(about_prompt["prompt_logprobs"]) == len(first["prompt_logprobs"])
    prompt_tokens = about_prompt["prompt_token_ids"]
    assert len(prompt_tokens) == whole["usage"]["prompt_tokens"]
    for token, entry in zip(prompt_tokens[1:], about_prompt["prompt_logprobs"][1:], strict=True):
        assert entry[str(token)]["logprob"] <= 0
        assert min(each["rank"] for each in entry.values()) == 1
        assert len(entry) == (1 if entry[str(token)]["rank"] == 1 else 2)
    sent = [each for chunk in chunks for part in chunk["choices"] for each in part.get("token_ids", [])]
    assert sent == choice["token_ids"]
    assert len(sent) == whole["usage"]["completion_tokens"]


def test_a_maximum_beyond_the_context_ends_at_the_context(server: Server) -> None:
    ids = post(server, "/completions", {**PROMPT, "return_token_ids": True})["choices"][0]["token_ids"]
    context = httpx.get(f"{server.api}/models", timeout=60).json()["data"][0]["max_model_len"]
    length = context - 20
    body = {"prompt": (ids * length)[:length], "max_tokens": 10**9, "ignore_eos": True}
    whole = post(server, "/completions", body)
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["total_tokens"] == context
