"""Prompts that are truncated instead of refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.api_fakes import a_server, backend_of, byte_tokenizer, chat, complete, error_of

from fllm.concurrency.turn_executor import run_at_once
from fllm.control_tokens import MARK
from fllm.values import ModelCard
from fllm_api.app_state import AppState
from fllm_api.intake.tokenization import Truncation, tokenize_prompt

CARD = {"max_model_len": 30}


def prompt_of(server: AppState) -> str:
    return server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ({"truncate_prompt_tokens": 5}, "56789"),
        ({"truncate_prompt_tokens": 5, "truncation_side": "left"}, "56789"),
        ({"truncate_prompt_tokens": 5, "truncation_side": "right"}, "01234"),
        ({"truncate_prompt_tokens": 10}, "0123456789"),
        ({"truncate_prompt_tokens": 2**40}, "0123456789"),
        ({"truncate_prompt_tokens": None}, "0123456789"),
    ],
    ids=str,
)
def test_a_completion_keeps_that_many_tokens(body: dict[str, Any], kept: str) -> None:
    server = a_server(card=CARD)
    tokens = server.tokenizer.encode("0123456789", add_special_tokens=False)
    for prompt in ("0123456789", tokens):
        assert complete(server, prompt=prompt, **body).status_code == 200
        assert prompt_of(server) == kept


@pytest.mark.parametrize(
    "body", [{}, {"add_special_tokens": False}, {"truncate_prompt_tokens": 999}], ids=str
)
def test_a_prompt_may_have_the_character_that_marks_control_tokens(body: dict[str, Any]) -> None:
    server = a_server()
    assert complete(server, prompt=f"a{MARK}b", **body).status_code == 200
    assert prompt_of(server) == f"a{MARK}b"


def test_a_chat_keeps_the_end_of_its_prompt() -> None:
    server = a_server()
    assert chat(server, truncate_prompt_tokens=11).json()["usage"]["prompt_tokens"] == 11
    assert prompt_of(server) == "<assistant>"


@pytest.mark.parametrize(
    ("body", "length"),
    [({}, 14), ({"max_tokens": 5}, 25), ({"max_tokens": -1}, 29), ({"max_tokens": 10**9}, 29)],
    ids=str,
)
def test_as_many_tokens_as_leave_room_for_the_output(body: dict[str, Any], length: int) -> None:
    server = a_server(card=CARD)
    assert complete(server, prompt="x" * 99, truncate_prompt_tokens=-1, **body).status_code == 200
    assert len(prompt_of(server)) == length


def test_a_chat_without_a_maximum_leaves_room_for_one_token() -> None:
    server = a_server(card=CARD)
    message = [{"role": "user", "content": "x" * 99}]
    assert chat(server, messages=message, truncate_prompt_tokens=-1).json()["usage"]["prompt_tokens"] == 29


def test_the_beginning_of_sequence_is_kept_and_counts() -> None:
    tokenizer = byte_tokenizer()
    from tokenizers.processors import TemplateProcessing

    bos = tokenizer.token_to_id("<s>")
    tokenizer._inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    server = a_server(tokenizer=tokenizer)
    complete(server, prompt="0123456789", truncate_prompt_tokens=4)
    assert prompt_of(server) == "<s>789"
    complete(server, prompt="0123456789", add_special_tokens=False)
    assert prompt_of(server) == "0123456789"
    chat(server, add_special_tokens=True)
    assert prompt_of(server) == "<s><user>Hi<assistant>"


def test_an_echo_repeats_what_was_kept() -> None:
    response = complete(a_server(["!"]), prompt="0123456789", truncate_prompt_tokens=3, echo=True)
    assert response.json()["choices"][0]["text"] == "789!"


@pytest.mark.parametrize("ask", [chat, complete])
@pytest.mark.parametrize(
    "body", [{"truncate_prompt_tokens": 0}, {"truncate_prompt_tokens": -2}, {"truncate_prompt_tokens": "5"}]
)
def test_invalid_values_name_the_field(ask: Any, body: dict[str, Any]) -> None:
    response = ask(a_server(), **body)
    assert (response.status_code, error_of(response)["param"]) == (400, "truncate_prompt_tokens")


@given(st.text("ab é\n", max_size=400), st.integers(1, 50), st.booleans())
def test_the_tokens_are_those_of_the_whole_text(text: str, limit: int, keeps_end: bool) -> None:
    tokenizer = byte_tokenizer()
    truncation = Truncation(limit, keeps_end)
    work = tokenize_prompt(
        text,
        tokenizer,
        ModelCard(tokenizer="", max_model_len=512),
        add_special_tokens=False,
        truncation=truncation,
        param="prompt",
    )
    assert run_at_once(work) == truncation.keep(tokenizer.encode(text, add_special_tokens=False))
