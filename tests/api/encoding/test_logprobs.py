"""Log-probabilities that are encoded piece by piece are the same."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import FakeBackend, a_server, byte_tokenizer, chat, complete, events, spell

from fllm_api.app_state import AppState
from fllm_api.controllers import responses
from fllm_api.encoding import logprobs

WORDS = ("Hello", " wo", "rld", "!", " Bye")


def set_piece(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Set the number of tokens that are encoded at once."""
    monkeypatch.setattr(logprobs, "PIECE_TOKENS", tokens)
    monkeypatch.setattr(responses, "PIECE_TOKENS", tokens)


@pytest.mark.parametrize("tokens", [1, 2, 4])
@pytest.mark.parametrize(
    "body", [{"logprobs": 2}, {"logprobs": 0, "echo": True, "n": 2, "prompt": ["abcde", "f"]}]
)
def test_completions(tokens: int, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    server = a_server(WORDS)
    whole = complete(server, **body).json()["choices"]
    assert len(whole[0]["logprobs"]["tokens"]) > 4
    streamed = events(complete(server, **body, stream=True))
    set_piece(monkeypatch, tokens)
    assert complete(server, **body).json()["choices"] == whole
    again = events(complete(server, **body, stream=True))
    assert [chunk["choices"] for chunk in again] == [chunk["choices"] for chunk in streamed]


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_chat(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = a_server(WORDS)
    body = {"logprobs": True, "top_logprobs": 2, "n": 2}
    whole = chat(server, **body).json()["choices"]
    assert len(whole[0]["logprobs"]["content"]) > 4
    set_piece(monkeypatch, tokens)
    assert chat(server, **body).json()["choices"] == whole


def test_tokens_without_text_keep_their_place_if_those_after_them_are_encoded_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = accumulated()
    streamed = events(complete(server, logprobs=1, stream=True))
    assert [len(chunk["choices"][0]["logprobs"]["tokens"]) for chunk in streamed] == [5, 1]
    set_piece(monkeypatch, 2)
    again = events(complete(server, logprobs=1, stream=True))
    assert [chunk["choices"] for chunk in again] == [chunk["choices"] for chunk in streamed]


def accumulated() -> AppState:
    """Return a server whose first outputs are parts of one character."""
    tokenizer = byte_tokenizer(("☃",))
    parts = tokenizer.encode("☃", add_special_tokens=False)
    letters = tokenizer.encode("abz", add_special_tokens=False)
    assert len(parts) == 3
    assert spell(tokenizer, "☃") not in parts
    return a_server((), backend=FakeBackend([parts[:2], [parts[2], *letters[:2]], letters[2:]]))
