"""`/v1/completions`, as one JSON object and as a stream."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import EOS, a_server, backend_of, complete, events

from fllm_api.app_state import AppState


def choice_of(server: AppState, **body: Any) -> dict[str, Any]:
    response = complete(server, **body)
    assert response.status_code == 200, response.text
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


def test_a_response_has_openais_format() -> None:
    body = complete(a_server()).json()
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "text_completion",
        "model": "org/fake",
        "choices": [
            {
                "index": 0,
                "text": "Hello world!",
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": 2,
            "completion_tokens": 4,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_stream_is_text_and_one_finish() -> None:
    chunks = events(complete(a_server(), stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["text"] for choice in choices] == ["Hello", " world", "!", ""]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == complete(a_server()).json()["usage"]


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["ab"]),
        (["ab", "c"], ["ab", "c"]),
        ([64, 65], ["ab"]),
        ([[64, 65], [66]], ["ab", "c"]),
    ],
)
def test_prompts_have_four_forms(prompt: Any, texts: list[str]) -> None:
    server = a_server()
    body = complete(server, prompt=prompt, n=2).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(texts)))
    asked = [
        server.tokenizer.decode(p.token_ids, skip_special_tokens=False) for p in backend_of(server).prompts
    ]
    assert asked == [text for text in texts for _ in range(2)]
    assert body["usage"]["prompt_tokens"] == sum(map(len, texts))
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == len(texts)


def test_choices_are_in_the_order_of_their_prompts() -> None:
    body = complete(a_server(), prompt=["x", "yy"], n=2, echo=True).json()
    starts = [choice["text"].removesuffix("Hello world!") for choice in body["choices"]]
    assert starts == ["x", "x", "yy", "yy"]


def test_an_empty_prompt_is_a_bos_token() -> None:
    server = a_server(bos=True)
    assert complete(server, prompt="").status_code == 200
    assert backend_of(server).prompts[0].token_ids == [server.tokenizer.token_to_id("<s>")]


def test_log_probabilities_are_four_lists() -> None:
    assert choice_of(a_server(["Hi", "!!"]), logprobs=2)["logprobs"] == {
        "tokens": ["Hi", "!!", EOS],
        "token_logprobs": [-0.25, -0.25, -0.25],
        "top_logprobs": [{"Hi": -0.25, "!": -2.0}, {"!!": -0.25, "!": -2.0}, {EOS: -0.25, "!": -2.0}],
        "text_offset": [0, 2, 4],
    }


def test_no_alternatives_still_show_the_chosen_token() -> None:
    assert choice_of(a_server(["Hi"]), logprobs=0)["logprobs"]["top_logprobs"] == [
        {"Hi": -0.25},
        {EOS: -0.25},
    ]


def test_offsets_continue_across_chunks() -> None:
    chunks = events(complete(a_server(), stream=True, logprobs=0, echo=True))
    offsets = [i for chunk in chunks for i in chunk["choices"][0]["logprobs"]["text_offset"]]
    assert offsets == [0, 1, 2, 7, 13, 14]


def test_an_echo_has_the_prompts_log_probabilities() -> None:
    choice = choice_of(a_server(["Hi"]), prompt="ab", echo=True, logprobs=1)
    assert choice["text"] == "abHi"
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["a", "b", "Hi", EOS]
    assert logprobs["token_logprobs"] == [None, -0.5, -0.25, -0.25]
    assert logprobs["top_logprobs"][:2] == [None, {"b": -0.5}]
    assert logprobs["text_offset"] == [0, 1, 2, 4]


def test_offsets_count_the_special_tokens_of_an_echoed_text() -> None:
    choice = choice_of(a_server(["Hi"]), prompt=f"a{EOS}b", echo=True, logprobs=0)
    text, logprobs = choice["text"], choice["logprobs"]
    assert text == f"a{EOS}bHi"
    for token, offset in list(zip(logprobs["tokens"], logprobs["text_offset"], strict=True))[-5:-1]:
        assert text[offset:].startswith(token)


def test_the_prompt_can_be_scored_without_generating() -> None:
    choice = choice_of(a_server(), prompt=[64, 65], echo=True, logprobs=0, max_tokens=0)
    assert (choice["text"], choice["finish_reason"]) == ("ab", "length")
    assert choice["logprobs"]["token_logprobs"] == [None, -0.5]


def test_sixteen_tokens_are_the_default() -> None:
    server = a_server()
    complete(server)
    complete(server, max_tokens=None)
    assert [prompt.sampling.max_tokens for prompt in backend_of(server).prompts] == [16, 16]


def test_the_default_is_limited_to_the_rest_of_the_context() -> None:
    server = a_server(card={"max_model_len": 10})
    complete(server, prompt="1234567")
    assert backend_of(server).prompts[0].sampling.max_tokens == 3


def test_a_completion_is_not_parsed() -> None:
    def never(context: object) -> Any:
        raise AssertionError

    assert choice_of(a_server(reasoning=never, tools=never))["text"] == "Hello world!"
