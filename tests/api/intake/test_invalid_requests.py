"""An invalid request gets one clear error message with the path of the field."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from support.api_fakes import FakeToolCallParser, a_server, ask, backend_of, chat, complete, error_of

from fllm.errors import BackendError, BackendUnavailable, RequestError

USER = {"role": "user", "content": "Hi"}
SERVER = a_server(tools=FakeToolCallParser)
TOOL = {"type": "function", "function": {"name": "f"}}


def rejected(response: httpx.Response, param: str | None, status: int = 400) -> str:
    error = error_of(response)
    assert (response.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    message: str = error["message"]
    return message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "user", "content": 5}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"model": 5}, "model"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": "2"}, "n"),
        ({"n": 10**30}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": 1.5}, "min_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias[...]"),
        ({"logit_bias": {"99999": 1}}, "logit_bias"),
        ({"seed": 2**63}, "seed"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": 5}, "stop"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [99999]}, "stop_token_ids"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids[0]"),
        ({"allowed_token_ids": [99999]}, "allowed_token_ids"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"bad_words": "a"}, "bad_words"),
        ({"bad_words": ["a" * 1000] * 17}, "bad_words"),
        ({"thinking_token_budget": 5}, "thinking_token_budget"),
        ({"thinking_token_budget": -2}, "thinking_token_budget"),
        ({"thinking_budget": 5}, "thinking_budget"),
        ({"reasoning": {"max_tokens": 5}}, "reasoning.max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "thinking.budget_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_completion_tokens": -2}, "max_completion_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"use_beam_search": True, "best_of": 2, "stream": True}, "use_beam_search"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
        ({"early_stopping": "always"}, "early_stopping"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"chat_template": "x"}, "chat_template"),
        ({"function_call": "auto"}, "function_call"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"guided_json": {}}, "guided_json"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"prediction": {"type": "content"}}, "prediction.content"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"logits_processors": ["a"]}, "logits_processors"),
        ({"vllm_xargs": {"a": 1}}, "vllm_xargs"),
        ({"prompt_embeds": "x"}, "prompt_embeds"),
        ({"logprob_token_ids": [1]}, "logprob_token_ids"),
        ({"repetition_detection": {}}, "repetition_detection"),
        ({"watermarking": True}, "watermarking"),
        ({"return_prompt_text": True}, "return_prompt_text"),
        ({"guided_whitespace_pattern": "x"}, "guided_whitespace_pattern"),
        (
            {"structured_outputs": {"disable_any_whitespace": True}},
            "structured_outputs.disable_any_whitespace",
        ),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"return_token_ids": 1}, "return_token_ids"),
        ({"priority": "high"}, "priority"),
        ({"documents": ["a"]}, "documents[0]"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_invalid_chat_request_names_the_field(body: dict[str, Any], param: str, stream: bool) -> None:
    streaming = {"stream": True} if stream and "stream_options" not in body else {}
    rejected(chat(SERVER, **{**streaming, **body}), param)
    assert backend_of(SERVER).prompts == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": ["a", [5]]}, "prompt"),
        ({"prompt": [[5, "a"]]}, "prompt[0][1]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [99999]}, "prompt"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=str,
)
def test_an_invalid_completion_request_names_the_field(body: dict[str, Any], param: str) -> None:
    rejected(complete(SERVER, **body), param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stop": ["a"] * 65}, "stop"),
        ({"stop": "a" * 1025}, "stop"),
        ({"stop": ["a", "a" * 1025]}, "stop[1]"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, "logit_bias"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": [[1]] * 2049}, "prompt"),
        ({"prompt": ["a"] * 2048, "n": 128}, "prompt"),
        ({"prompt": "a", "n": 10**30}, "n"),
        ({"prompt": "a", "best_of": 10**30}, "best_of"),
        ({"prompt": "a", "logprobs": 10**30}, "logprobs"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_values_beyond_a_maximum_are_rejected(body: dict[str, Any], param: str) -> None:
    rejected(complete(SERVER, **body), param)
    assert backend_of(SERVER).prompts == []


@pytest.mark.parametrize(
    "body",
    [
        {"stop": ["a" * 256] * 64},
        {"stop_token_ids": [1] * 1024},
        {"logit_bias": {str(token): 1 for token in range(200)}},
        {"prompt": ["a"] * 100, "n": 2},
        {"seed": 2**63 - 1, "n": 2},
    ],
    ids=lambda value: str(value)[:40],
)
def test_values_at_a_maximum_are_accepted(body: dict[str, Any]) -> None:
    assert complete(a_server(), **body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"unknown": 1, "stream_options": None},
        {"messages": [{**USER, "unknown": {}, "name": "Ann"}]},
        {"tools": [{**TOOL, "function": {"name": "f", "strict": False, "unknown": 1}}]},
        {"stream": True, "stream_options": {"unknown": 1}},
        {"metadata": {"a": "b"}, "user": "u", "safety_identifier": "s", "prompt_cache_key": "k"},
        {"store": True, "prediction": {"type": "content", "content": [{"type": "text", "text": "a"}]}},
        {"store": False, "service_tier": "auto", "modalities": ["text"], "response_format": {"type": "text"}},
        {"model": "any string at all"},
        {"model": None},
        {"stop": []},
        {"stop": ""},
        {"priority": -5, "documents": [], "add_special_tokens": False, "spaces_between_special_tokens": True},
        {"kv_transfer_params": {}, "watermarking": False, "logits_processors": [], "vllm_xargs": None},
        {"request_id": "r", "session_id": "s", "stream_interval": 5, "bad_words": []},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": None, "tool_choice": "none"},
        {"functions": [], "function_call": "none"},
        {"logit_bias": {}, "stop_token_ids": [], "modalities": []},
    ],
    ids=str,
)
def test_unknown_fields_and_values_without_effect_are_accepted(body: dict[str, Any]) -> None:
    assert chat(a_server(tools=FakeToolCallParser), **body).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"", None, "empty"),
        (b"{", None, "JSON"),
        (b"null", None, "object"),
        (b"[]", None, "object"),
        (b"\xff", None, "JSON"),
        (b'{"model": "\xff"}', None, "UTF-8"),
        (b'{"model": "\\ud800"}', None, "JSON"),
        (b'{"model": "m", "temperature": NaN}', None, "JSON"),
        (b'{"model": "m", "temperature": 1e400}', "temperature", "range"),
        (b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "nested"),
        (b'{"model": "m"}', "messages", "missing"),
        (b'{"model": "m", "messages": [{"role": "user"}]} x', None, "JSON"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_body_is_rejected(body: bytes, param: str | None, words: str) -> None:
    headers = {"content-type": "application/json"}
    response = ask(SERVER, "POST", "/v1/chat/completions", content=body, headers=headers)
    assert words in rejected(response, param)


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/plain"}, {"content-type": "multipart/form-data"}]
)
def test_another_content_type_is_415(headers: dict[str, str]) -> None:
    response = ask(a_server(), "POST", "/v1/completions", content=b"{}", headers=headers)
    assert "application/json" in rejected(response, None, 415)


def test_json_with_a_charset_is_json() -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    body = b'{"model": "m", "prompt": "x"}'
    assert ask(a_server(), "POST", "/v1/completions", content=body, headers=headers).status_code == 200


def test_a_body_that_is_too_long_is_413() -> None:
    response = complete(a_server(config={"max_body_bytes": 100}), prompt="x" * 100)
    assert rejected(response, None, 413)


def test_an_unknown_route_is_404() -> None:
    assert "GET /v1/nothing" in rejected(ask(a_server(), "GET", "/v1/nothing"), None, 404)


def test_a_wrong_method_is_405_with_the_allowed_methods() -> None:
    response = ask(a_server(), "GET", "/v1/completions")
    rejected(response, None, 405)
    assert "POST" in response.headers["allow"]


def test_the_error_of_a_template_is_in_the_message() -> None:
    from fllm.chat import ChatTemplate

    source = "{{ raise_exception('roles must alternate') }}"
    template = ChatTemplate.compile({"default": source}, special_tokens={})
    assert "roles must alternate" in rejected(chat(a_server(template=template)), "messages")


@pytest.mark.parametrize(
    ("failure", "status", "kind", "message"),
    [
        (RequestError("no", param="seed", code="c"), 400, "invalid_request_error", "no"),
        (BackendUnavailable("starting"), 503, "server_error", "starting"),
        (BackendError("out of memory"), 500, "server_error", "out of memory"),
        (
            RuntimeError("secret"),
            500,
            "server_error",
            "the server failed to process the request; see its log",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_backend_error_before_any_output_sets_the_status(
    failure: Exception,
    status: int,
    kind: str,
    message: str,
    stream: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = a_server()
    backend_of(server).fails_after, backend_of(server).failure = 0, failure
    response = chat(server, stream=stream)
    error = error_of(response)
    assert (response.status_code, error["type"], error["message"]) == (status, kind, message)
    assert bool(caplog.records) == (status == 500)


def test_a_stream_that_fails_ends_with_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    server = a_server()
    backend_of(server).fails_after = 2
    response = chat(server, stream=True)
    assert response.status_code == 200
    *_, failure, done, rest = response.text.split("\n\n")
    assert failure.startswith('data: {"error":{"message":"the server failed')
    assert (done, rest) == ("data: [DONE]", "")
    assert "secret" not in response.text
    assert "secret" in caplog.text


def test_a_full_response_that_fails_late_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    server = a_server()
    backend_of(server).fails_after = 2
    assert chat(server).status_code == 500


def test_the_log_line_of_a_failure_names_the_plugin_that_raised(caplog: pytest.LogCaptureFixture) -> None:
    server, failure = a_server(), KeyError("oops")
    failure.add_note("raised by the tool-call parser 'call' of acme")
    backend_of(server).fails_after, backend_of(server).failure = 0, failure
    assert chat(server).status_code == 500
    [record] = (each for each in caplog.records if each.message.startswith("request failed: "))
    assert record.message.endswith("; raised by the tool-call parser 'call' of acme")
