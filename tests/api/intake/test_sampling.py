"""Sampling parameters of a request, as they reach the backend."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.api_fakes import a_server, backend_of, chat, complete, error_of, events
from support.tokenizers_by_kind import TOKENIZERS, ids_of

from fllm.requests.chat import ChatRequest
from fllm.values import SamplingDefaults, SamplingParams
from fllm_api.app_state import AppState


def sampling(server: AppState, **body: Any) -> SamplingParams:
    response = chat(server, **body)
    assert response.status_code == 200, response.text
    return backend_of(server).prompts[-1].sampling


@pytest.mark.parametrize(
    ("field", "value", "reaches"),
    [
        ("max_tokens", 7, {"max_tokens": 7}),
        ("max_completion_tokens", 7, {"max_tokens": 7}),
        ("min_tokens", 2, {"min_tokens": 2}),
        ("temperature", 0, {"temperature": 0.0}),
        ("temperature", 1.5, {"temperature": 1.5}),
        ("top_p", 0.5, {"top_p": 0.5}),
        ("top_k", 40, {"top_k": 40}),
        ("top_k", 0, {"top_k": -1}),
        ("min_p", 0.1, {"min_p": 0.1}),
        ("presence_penalty", -2, {"presence_penalty": -2.0}),
        ("frequency_penalty", 2, {"frequency_penalty": 2.0}),
        ("repetition_penalty", 1.1, {"repetition_penalty": 1.1}),
        ("logit_bias", {"5": -100, "6": 1.5}, {"logit_bias": {5: -100.0, 6: 1.5}}),
        ("seed", -3, {"seed": -3}),
        ("allowed_token_ids", [4, 3, 4], {"allowed_token_ids": (4, 3)}),
        ("bad_words", [], {"bad_words_token_ids": ()}),
        ("stop_token_ids", [3, 4], {"stop_token_ids": (3, 4)}),
        ("ignore_eos", True, {"ignore_eos": True}),
        ("logprobs", True, {"logprobs": 0}),
    ],
)
def test_a_parameter_reaches_the_backend(field: str, value: object, reaches: dict[str, object]) -> None:
    got = sampling(a_server(), **{field: value})
    assert {name: getattr(got, name) for name in reaches} == reaches


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        (["ab"], ["ab", " ab"]),
        ([" ab", "ab"], [" ab", "ab"]),
        (["\n"], ["\n"]),
        (["a", "b c"], ["a", "b c", " a", " b c"]),
    ],
)
def test_bad_words_reach_the_backend_with_and_without_a_space(words: list[str], spelled: list[str]) -> None:
    server = a_server()
    found = sampling(server, bad_words=words).bad_words_token_ids
    assert [server.tokenizer.decode(ids, skip_special_tokens=False) for ids in found] == spelled


def test_bad_words_have_no_space_that_the_tokenizer_adds() -> None:
    tokenizer = TOKENIZERS["llama2"]
    server = a_server(tokenizer=tokenizer)
    found = sampling(server, bad_words=["lo"], max_tokens=1).bad_words_token_ids
    assert tuple(ids_of(tokenizer, "lo")) in found
    assert tuple(ids_of(tokenizer, "▁", "lo")) in found


def test_top_logprobs_reach_the_backend() -> None:
    assert sampling(a_server(), logprobs=True, top_logprobs=20).logprobs == 20


def test_nulls_mean_the_defaults() -> None:
    names = [field.name for field in msgspec.structs.fields(ChatRequest) if not field.required]
    assert len(names) > 40
    assert sampling(a_server(), **dict.fromkeys(names)) == sampling(a_server())


def test_vllms_defaults() -> None:
    context = 512 - len("<user>Hi<assistant>")
    assert sampling(a_server()) == SamplingParams(max_tokens=context)


def test_the_models_generation_config_takes_precedence_over_defaults() -> None:
    recommended = SamplingDefaults(
        temperature=0.6, top_p=0.9, top_k=20, min_p=0.05, repetition_penalty=1.05, max_tokens=30
    )
    server = a_server(card={"defaults": recommended})
    expected = SamplingParams(
        max_tokens=30, temperature=0.6, top_p=0.9, top_k=20, min_p=0.05, repetition_penalty=1.05
    )
    assert sampling(server) == expected
    complete(server)
    assert backend_of(server).prompts[-1].sampling == expected


def test_the_request_takes_precedence_over_the_models_generation_config() -> None:
    server = a_server(card={"defaults": SamplingDefaults(temperature=0.6, top_k=20, max_tokens=30)})
    got = sampling(server, temperature=0, top_k=-1, max_tokens=40)
    assert (got.temperature, got.top_k, got.max_tokens) == (0, -1, 40)


def test_max_completion_tokens_takes_precedence() -> None:
    assert sampling(a_server(), max_completion_tokens=3, max_tokens=9).max_tokens == 3


def test_choices_of_one_request_have_different_seeds() -> None:
    server = a_server()
    chat(server, n=2, seed=5)
    assert [prompt.sampling.seed for prompt in backend_of(server).prompts] == [5, 6]


@pytest.mark.parametrize(("ask", "prompt"), [(chat, len("<user>Hi<assistant>")), (complete, len("Hi"))])
@pytest.mark.parametrize("maximum", [29, 10**12, -1])
@pytest.mark.parametrize("stream", [False, True])
def test_a_maximum_is_an_upper_bound_and_the_rest_of_the_context_another(
    ask: Any, prompt: int, maximum: int, stream: bool
) -> None:
    server = a_server(["a"] * 40, card={"max_model_len": 30})
    response = ask(server, max_tokens=maximum, stream=stream)
    assert backend_of(server).prompts[0].sampling.max_tokens == 30 - prompt
    if stream:
        assert events(response)[-1]["choices"][0]["finish_reason"] == "length"
    else:
        body = response.json()
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["usage"]["total_tokens"] == 30


def test_the_context_bounds_each_of_several_prompts_by_itself() -> None:
    server = a_server(card={"max_model_len": 30})
    complete(server, prompt=["a" * 10, "a" * 28], max_tokens=25)
    assert [prompt.sampling.max_tokens for prompt in backend_of(server).prompts] == [20, 20]


def test_no_maximum_exceeds_the_models_default_and_that_of_completions() -> None:
    server = a_server(card={"defaults": SamplingDefaults(max_tokens=30)})
    assert sampling(server, max_tokens=-1).max_tokens == 512 - len("<user>Hi<assistant>")
    complete(server, max_tokens=-1)
    assert backend_of(server).prompts[-1].sampling.max_tokens == 512 - len("Hi")


def test_a_maximum_beyond_the_context_is_lowered_to_the_bound_of_log_probabilities() -> None:
    server = a_server(config={"max_logprob_entries": 100})
    assert sampling(server, max_tokens=10**6, logprobs=True, top_logprobs=4).max_tokens == 20
    response = chat(server, max_tokens=21, logprobs=True, top_logprobs=4)
    assert (response.status_code, error_of(response)["param"]) == (400, "top_logprobs")


@pytest.mark.parametrize("ask", [chat, complete])
def test_a_prompt_that_fills_the_context_is_rejected_before_a_stream_starts(ask: Any) -> None:
    response = ask(a_server(card={"max_model_len": 2}), stream=True)
    assert response.status_code == 400
    assert error_of(response)["code"] == "context_length_exceeded"


def test_stop_may_be_a_string_or_a_list() -> None:
    assert chat(a_server(), stop="lo").json()["choices"][0]["message"]["content"] == "Hel"
    assert chat(a_server(), stop=["zz", "l"]).json()["choices"][0]["message"]["content"] == "He"


BEAM = {"use_beam_search": True, "best_of": 2, "max_tokens": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("presence_penalty", 0.5),
        ("frequency_penalty", 0.5),
        ("repetition_penalty", 1.1),
        ("logit_bias", {"5": 1}),
        ("allowed_token_ids", [5]),
        ("bad_words", ["a"]),
    ],
)
def test_beam_search_rejects_parameters_that_it_does_not_support(field: str, value: object) -> None:
    response = complete(a_server(), **BEAM, **{field: value})
    assert (response.status_code, error_of(response)["param"]) == (400, field)


def test_beam_search_accepts_neutral_values_and_ignores_the_models_generation_config() -> None:
    neutral = {"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {}}
    server = a_server(card={"defaults": SamplingDefaults(repetition_penalty=1.05)})
    for fields in ({}, neutral):
        assert complete(server, **BEAM, **fields).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"n": 5}, "n"),
        ({"best_of": 5}, "best_of"),
        ({"best_of": 5, "use_beam_search": True}, "best_of"),
        ({"prompt": ["a"] * 5}, "prompt"),
        ({"prompt": ["a"] * 2, "n": 3}, "prompt"),
    ],
)
def test_more_sequences_than_the_server_holds_are_rejected(body: dict[str, Any], field: str) -> None:
    server = a_server(config={"max_queue": 2}, card={"runtime": {"max_num_seqs": 2}})
    error = error_of(complete(server, **body))
    assert error["param"] == field
    assert "sequences, and 4 may be in flight at most" in error["message"]
