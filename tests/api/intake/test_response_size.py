"""Bounds on the size of a response."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import a_server, backend_of, chat, complete, error_of

from fllm_api.app_state import AppState
from fllm_api.intake import response_size


@pytest.fixture
def server() -> AppState:
    return a_server(config={"max_logprob_entries": 60})


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"logprobs": 2, "max_tokens": 20}, True),
        ({"logprobs": 2, "max_tokens": 21}, False),
        ({"logprobs": 2, "max_tokens": 21, "stream": True}, False),
        ({"logprobs": 0, "max_tokens": 30, "n": 2}, True),
        ({"logprobs": 0, "max_tokens": 31, "n": 2}, False),
        ({"logprobs": 0, "max_tokens": 20, "prompt": ["a", "b", "c"]}, True),
        ({"logprobs": 0, "max_tokens": 21, "prompt": ["a", "b", "c"]}, False),
        ({"logprobs": 1, "max_tokens": 0, "prompt": "x" * 30, "echo": True}, True),
        ({"logprobs": 1, "max_tokens": 1, "prompt": "x" * 30, "echo": True}, False),
        ({"logprobs": 1, "max_tokens": 0, "prompt": "x" * 16, "echo": True, "n": 2}, False),
        ({"max_tokens": 400, "n": 3}, True),
        ({"max_tokens": 21, "n": 1, "best_of": 3}, False),
    ],
)
def test_the_log_probabilities_of_a_completion_are_bounded(
    body: dict[str, Any], *, fits: bool, server: AppState
) -> None:
    response = complete(server, **body)
    assert response.status_code == (200 if fits else 400), response.text
    if not fits:
        error = error_of(response)
        assert error["param"] == ("logprobs" if "logprobs" in body else "best_of")
        assert "the maximum is 60" in error["message"]


@pytest.mark.parametrize(("tokens", "fits"), [(20, True), (21, False)])
def test_those_of_a_chat_too(tokens: int, *, fits: bool, server: AppState) -> None:
    response = chat(server, logprobs=True, top_logprobs=2, max_tokens=tokens)
    assert response.status_code == (200 if fits else 400)
    if not fits:
        assert error_of(response)["param"] == "top_logprobs"


@pytest.mark.parametrize(("tokens", "fits"), [(15, True), (16, False)])
def test_given_tokens_count_instead_of_the_most_likely_ones(
    tokens: int, *, fits: bool, server: AppState
) -> None:
    response = complete(server, logprobs=0, logprob_token_ids=[1, 2, 3], max_tokens=tokens)
    assert response.status_code == (200 if fits else 400)


def test_a_default_maximum_of_tokens_is_reduced_instead(server: AppState) -> None:
    chat(server, logprobs=True, top_logprobs=2)
    assert backend_of(server).prompts[-1].sampling.max_tokens == 20


def test_what_echo_repeats_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_size, "MAX_ECHO_CHARS", 10)
    server = a_server()
    assert complete(server, prompt="12345", n=2, echo=True).status_code == 200
    error = error_of(complete(server, prompt=["12345", "6"], n=2, echo=True))
    assert error["param"] == "echo"
    assert "12 characters in all choices; the maximum is 10" in error["message"]
    last = {"role": "assistant", "content": "12345"}
    body = {"messages": [last], "echo": True, "continue_final_message": True}
    assert chat(server, **body, n=2).status_code == 200
    assert error_of(chat(server, **body, n=3))["param"] == "echo"
