"""Token ids and log-probabilities of the prompt, in whole responses and in streams."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.api_fakes import EOS, FakeReasoningParser, a_server, chat, complete, error_of, events, spell

from fllm.pipeline.output_processor import SequenceOutput
from fllm.values import TokenLogprob
from fllm_api.encoding.logprobs import PIECE_TOKENS, TokenFormatter
from fllm_api.encoding.token_details import TokenDetails

WORDS = ("Hello", " world", "!")


def ids(server: Any, *words: str) -> list[int]:
    return [spell(server.tokenizer, word) for word in words]


def test_a_chat_has_the_token_ids_of_prompt_and_output() -> None:
    server = a_server(WORDS)
    body = chat(server, return_token_ids=True).json()
    prompt = server.tokenizer.encode("<user>Hi<assistant>", add_special_tokens=False)
    assert body["prompt_token_ids"] == prompt
    assert body["choices"][0]["token_ids"] == ids(server, *WORDS, EOS)


def test_a_streamed_chat_has_the_prompt_first_and_then_each_token_once() -> None:
    server = a_server(WORDS)
    first, *rest = events(chat(server, return_token_ids=True, stream=True))
    whole = chat(server, return_token_ids=True).json()
    assert first["prompt_token_ids"] == whole["prompt_token_ids"]
    assert all("prompt_token_ids" not in chunk for chunk in rest)
    sent = [choice.get("token_ids", []) for chunk in rest for choice in chunk["choices"]]
    assert sent == [[each] for each in ids(server, *WORDS, EOS)]


@pytest.mark.parametrize("included", [True, False])
def test_tokens_of_markers_and_of_hidden_reasoning_are_among_them(included: bool) -> None:
    words = ["Hm", ".", "|", "Yes"]
    server = a_server(words, reasoning=FakeReasoningParser)
    body = {"return_token_ids": True, "include_reasoning": included}
    assert chat(server, **body).json()["choices"][0]["token_ids"] == ids(server, *words, EOS)
    chunks = events(chat(server, stream=True, **body))
    sent = [each for chunk in chunks for choice in chunk["choices"] for each in choice.get("token_ids", [])]
    assert sent == ids(server, *words, EOS)


def test_a_completion_has_them_for_each_choice() -> None:
    server = a_server(WORDS)
    prompts = ["ab", "c"]
    body = complete(server, prompt=prompts, n=2, return_token_ids=True).json()
    encoded = [server.tokenizer.encode(prompt, add_special_tokens=False) for prompt in prompts]
    expected = [encoded[0], encoded[0], encoded[1], encoded[1]]
    assert [choice["prompt_token_ids"] for choice in body["choices"]] == expected
    assert [choice["token_ids"] for choice in body["choices"]] == [ids(server, *WORDS, EOS)] * 4
    chunks = events(complete(server, prompt=prompts, n=2, return_token_ids=True, stream=True))
    for index in range(4):
        parts = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert [part.get("prompt_token_ids") for part in parts] == [
            expected[index],
            *[None] * (len(parts) - 1),
        ]
        assert [each for part in parts for each in part["token_ids"]] == ids(server, *WORDS, EOS)


def test_there_are_none_unless_they_are_asked_for() -> None:
    for body in ({}, {"return_token_ids": False}, {"return_token_ids": None, "prompt_logprobs": None}):
        whole = chat(a_server(), **body).json()
        assert not {"prompt_token_ids", "prompt_logprobs"} & {*whole}
        assert "token_ids" not in whole["choices"][0]
        assert not {"token_ids", "prompt_token_ids", "prompt_logprobs"} & {
            *complete(a_server(), **body).json()["choices"][0]
        }


def entry(server: Any, character: str, rank: int | None = 1) -> dict[str, Any]:
    return {"logprob": -0.5, "rank": rank, "decoded_token": character}


def test_prompt_logprobs_have_vllms_format() -> None:
    server = a_server()
    [a, b] = ids(server, "a", "b")
    found = complete(server, prompt="ab", prompt_logprobs=2).json()["choices"][0]["prompt_logprobs"]
    other = server.tokenizer.token_text(0)
    assert found == [
        None,
        {
            str(b): entry(server, "b"),
            "0": {"logprob": -2.0, "rank": 2, "decoded_token": other},
        },
    ]
    assert a != b
    assert complete(server, prompt="ab", prompt_logprobs=0).json()["choices"][0]["prompt_logprobs"] == [
        None,
        {str(b): entry(server, "b", rank=None)},
    ]


def test_a_rank_that_the_backend_reports_is_passed_on() -> None:
    server = a_server()
    details = TokenDetails([[0, 1]], 1, TokenFormatter(server.tokenizer, as_ids=True), prompt_logprobs=1)
    unlikely = TokenLogprob(1, -9.0, ((0, -0.1),), 77)
    likely = TokenLogprob(0, -0.1, ((0, -0.1),), 1)
    output = SequenceOutput(index=0, events=[], tokens=[], prompt_logprobs=[None, unlikely, likely])
    details.add(output)
    found = msgspec.json.decode(msgspec.json.encode(details.take_prompt_logprobs(0)))
    assert found == [
        None,
        {
            "1": {"logprob": -9.0, "rank": 77, "decoded_token": "token_id:1"},
            "0": {"logprob": -0.1, "rank": 1, "decoded_token": "token_id:0"},
        },
        {"0": {"logprob": -0.1, "rank": 1, "decoded_token": "token_id:0"}},
    ]


@pytest.mark.parametrize("length", [3, PIECE_TOKENS - 1, 3 * PIECE_TOKENS + 5])
def test_prompt_logprobs_are_equal_in_streams_and_in_whole_responses(length: int) -> None:
    server = a_server()
    body = {"prompt": "a" * length, "prompt_logprobs": 1}
    whole = complete(server, **body).json()["choices"][0]["prompt_logprobs"]
    assert len(whole) == length
    first, *rest = events(complete(server, stream=True, **body))
    assert first["choices"][0]["prompt_logprobs"] == whole
    assert all("prompt_logprobs" not in chunk["choices"][0] for chunk in rest)


def test_a_chat_has_the_log_probabilities_of_its_prompt_once() -> None:
    server = a_server()
    whole = chat(server, prompt_logprobs=0, n=2).json()["prompt_logprobs"]
    assert len(whole) == len("<user>Hi<assistant>")
    first, *rest = events(chat(server, prompt_logprobs=0, n=2, stream=True))
    assert first["prompt_logprobs"] == whole
    assert all("prompt_logprobs" not in chunk for chunk in rest)


def test_an_echo_keeps_its_own_number_of_alternatives() -> None:
    server = a_server()
    body = {"prompt": "ab", "echo": True, "max_tokens": 0}
    alone = complete(server, logprobs=1, **body).json()["choices"][0]
    both = complete(server, logprobs=1, prompt_logprobs=2, **body).json()["choices"][0]
    assert both["logprobs"] == alone["logprobs"]
    assert len(both["prompt_logprobs"][1]) == 2
    fewer = complete(server, logprobs=2, prompt_logprobs=0, **body).json()["choices"][0]
    assert len(fewer["prompt_logprobs"][1]) == 1


def test_log_probabilities_of_a_prompt_alone_need_no_output() -> None:
    choice = complete(a_server(), prompt="ab", prompt_logprobs=0, max_tokens=0).json()["choices"][0]
    assert (choice["text"], len(choice["prompt_logprobs"])) == ("", 2)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": "a" * 50, "prompt_logprobs": 1}, 200),
        ({"prompt": "a" * 51, "prompt_logprobs": 1}, 400),
        ({"prompt": "a" * 26, "prompt_logprobs": 1, "n": 2}, 400),
    ],
    ids=str,
)
def test_log_probabilities_of_prompts_are_bounded(body: dict[str, Any], status: int) -> None:
    response = complete(a_server(config={"max_logprob_entries": 100}), **body)
    assert response.status_code == status
    if status == 400:
        assert error_of(response)["param"] == "prompt_logprobs"


def test_repeated_token_ids_of_prompts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_api.intake.response_size.MAX_PROMPT_TOKEN_IDS", 9)
    assert complete(a_server(), prompt="abc", n=3, return_token_ids=True).status_code == 200
    response = complete(a_server(), prompt="abc", n=4, return_token_ids=True)
    assert (response.status_code, error_of(response)["param"]) == (400, "return_token_ids")
