"""Log-probabilities that are encoded piece by piece are the same."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import FakeBackend, a_server, byte_tokenizer, chat, complete, events, spell

from fllm.concurrency.turn_executor import TurnExecutor
from fllm_api.app_state import AppState
from fllm_api.encoding import logprobs
from fllm_api.serving import responses

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


@pytest.mark.parametrize(
    ("piece", "turns"),
    [(6 * 3 - 1, 1), (6 * 3, 0)],
)
def test_the_choices_of_a_whole_response_are_encoded_in_turns_if_all_together_are_many(
    piece: int, turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_piece(monkeypatch, piece)
    calls = count_turns(monkeypatch)
    choices = complete(a_server(WORDS), logprobs=1, n=3).json()["choices"]
    assert [len(choice["logprobs"]["tokens"]) for choice in choices] == [5 + 1] * 3
    assert len(calls) == turns


def test_tokens_whose_text_was_held_back_are_encoded_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    server = a_server(("a", "a", "a", "b"))
    streamed = events(complete(server, logprobs=1, stop="aaac", stream=True))
    set_piece(monkeypatch, 3)
    calls = count_turns(monkeypatch)
    again = events(complete(server, logprobs=1, stop="aaac", stream=True))
    assert [chunk["choices"] for chunk in again] == [chunk["choices"] for chunk in streamed]
    assert [len(chunk["choices"][0]["logprobs"]["tokens"]) for chunk in again] == [4, 1]
    assert len(calls) == 1


def count_turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which each use of a `TurnExecutor` appends its client."""
    run, calls = TurnExecutor.run, list[str]()

    async def counted(self: TurnExecutor, work: Any, client: str, *args: Any) -> Any:
        calls.append(client)
        return await run(self, work, client, *args)

    monkeypatch.setattr(TurnExecutor, "run", counted)
    return calls


def accumulated() -> AppState:
    """Return a server whose first outputs are parts of one character."""
    tokenizer = byte_tokenizer(("☃",))
    parts = tokenizer.encode("☃", add_special_tokens=False)
    letters = tokenizer.encode("abz", add_special_tokens=False)
    assert len(parts) == 3
    assert spell(tokenizer, "☃") not in parts
    return a_server((), backend=FakeBackend([parts[:2], [parts[2], *letters[:2]], letters[2:]]))
