"""`/tokenize`, `/detokenize` and `/apply-template` over ASGI, with one token per byte."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from support.api_fakes import Recorder, ask, backend_of, chat, error_of
from support.dialect_servers import a_dialect_server

from fllm import Serving
from fllm_api.config import RateLimits
from fllm_api.intake import tokenization
from fllm_dialects.tokens import routes
from fllm_dialects.tokens.protocol import TokenizeRequest

SERVER = a_dialect_server("tokens", bos=True)


def post(path: str, server: Any = SERVER, **body: Any) -> httpx.Response:
    return ask(server, "POST", path, json=body)


def answer(path: str, **body: Any) -> Any:
    response = post(path, **body)
    assert response.status_code == 200, response.text
    return response.json()


def ids(text: str) -> list[int]:
    return SERVER.tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
def test_a_prompt_gets_vllms_response(path: str) -> None:
    found = answer(path, prompt="ab", model="any")
    assert found == {"count": 2, "max_model_len": 512, "tokens": ids("ab"), "token_strs": None}
    assert answer(path, prompt="a b", return_token_strs=True)["token_strs"] == ["a", " ", "b"]
    assert answer(path, prompt="")["count"] == 0


def test_a_conversation_has_the_tokens_of_a_chat() -> None:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "<|eot|>"}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "chat_template_kwargs": {"note": "N"},
    }
    found = answer("/tokenize", **body)
    chat(SERVER, **body)
    assert found["tokens"] == backend_of(SERVER).prompts[-1].token_ids
    assert found["count"] == len(found["tokens"])


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "<user>a<assistant>b"),
        ({"add_generation_prompt": False, "continue_final_message": False}, "<user>a<assistant>b"),
        ({"add_generation_prompt": True}, "<user>a<assistant>b<assistant>"),
    ],
)
def test_the_end_of_a_conversation_can_be_chosen(fields: dict[str, Any], end: str) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert answer("/tokenize", messages=messages, **fields)["tokens"] == ids(end)
    assert answer("/apply-template", messages=messages, **fields) == {"prompt": end}


def test_a_content_gets_llamacpps_response() -> None:
    assert answer("/tokenize", content="ab") == {"tokens": ids("ab")}
    pieces = answer("/tokenize", content="a☃", with_pieces=True)["tokens"]
    first, *rest = ids("a☃")
    assert pieces[0] == {"id": first, "piece": "a"}
    assert pieces[1:] == [{"id": i, "piece": [byte]} for i, byte in zip(rest, "☃".encode(), strict=True)]


def test_special_tokens_in_a_content_can_be_text() -> None:
    [eot] = ids("<|eot|>")
    assert answer("/tokenize", content="<|eot|>")["tokens"] == [eot]
    found = answer("/tokenize", content="<|eot|>", parse_special=False)["tokens"]
    assert eot not in found
    assert answer("/detokenize", tokens=found)["content"] == "<|eot|>"


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
def test_tokens_become_text_again(path: str) -> None:
    text = "서울 <|eot|>"
    assert answer(path, tokens=ids(text)) == {"prompt": text, "content": text}
    assert answer(path, tokens=[])["prompt"] == ""


def test_a_rendered_template_has_no_marks() -> None:
    messages = [{"role": "user", "content": "<|eot|>"}]
    assert answer("/apply-template", messages=messages)["prompt"] == "<user><|eot|><assistant>"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "content": "a"}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a"}], "chat_template": "x"},
            "chat_template",
        ),
        ("/detokenize", {"tokens": [0, 99999]}, "tokens[1]"),
        ("/detokenize", {"tokens": [2**63]}, "tokens[0]"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
        ("/apply-template", {}, "messages"),
    ],
    ids=str,
)
def test_bad_requests_name_the_field(path: str, body: dict[str, Any], param: str) -> None:
    response = post(path, **body)
    assert response.status_code == 400, response.text
    assert error_of(response)["param"] == param


def test_a_model_without_a_template_tokenizes_texts() -> None:
    server = a_dialect_server("tokens", template=None)
    assert post("/tokenize", server, prompt="a").status_code == 200
    assert post("/tokenize", server, messages=[{"role": "user", "content": "a"}]).status_code == 400


def test_limits_hold_but_nothing_is_generated() -> None:
    recorder = Recorder()
    config = {"limits": RateLimits(tokens_per_minute=3)}
    server = a_dialect_server("tokens", config=config, collectors=(recorder,))
    assert post("/tokenize", server, prompt="abcd").status_code == 200
    response = post("/detokenize", server, tokens=[1])
    assert (response.status_code, error_of(response)["type"]) == (429, "rate_limit_error")
    assert recorder.calls == []
    assert backend_of(server).prompts == []


def test_a_server_without_the_plugin_has_no_such_routes() -> None:
    assert ask(a_dialect_server(), "POST", "/tokenize", json={"prompt": "a"}).status_code == 404


@pytest.mark.parametrize("field", ["prompt", "content", "messages"])
def test_a_text_that_is_far_too_long_is_not_tokenized(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "MIN_COUNTED_CHARS", 100)
    limit = 16 * SERVER.card.max_model_len
    fits = answer("/tokenize", prompt="a" * limit)
    assert fits["count"] == limit
    text = "a" * (limit + 1)
    body: dict[str, Any] = {field: [{"role": "user", "content": text}] if field == "messages" else text}
    response = post("/tokenize", **body)
    assert response.status_code == 400
    assert error_of(response)["param"] == field
    assert f"tokenizes at most {limit}" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"content": "a☃b", "with_pieces": True}, "tokens"),
        ({"prompt": "a b", "return_token_strs": True}, "token_strs"),
    ],
)
def test_texts_of_tokens_are_made_in_pieces(
    body: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = answer("/tokenize", **body)[field]
    monkeypatch.setattr(routes, "PIECE_TOKENS", 2)
    assert answer("/tokenize", **body)[field] == whole
    pieces = routes._token_list(  # pyright: ignore[reportPrivateUsage]
        TokenizeRequest(**body), [*range(10)], cast("Serving", SERVER)
    )
    assert list(pieces) == [0] * 5
