"""Completions with a suffix, for models that fill in the middle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.api_fakes import EOS, a_server, backend_of, byte_tokenizer, complete, error_of, events, spell
from support.tokenizers_by_kind import llama2
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from fllm.control_tokens import MARK
from fllm.tokenizer import Tokenizer
from fllm_api.app_state import AppState
from fllm_api.intake.fill_in_middle import require_fill_in_middle

QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
FAMILIES = {
    "qwen": (QWEN, "<|fim_prefix|>{before}<|fim_suffix|>{after}<|fim_middle|>"),
    "starcoder": (
        ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        "<fim_prefix>{before}<fim_suffix>{after}<fim_middle>",
    ),
    "deepseek": (
        ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        "<｜fim▁begin｜>{before}<｜fim▁hole｜>{after}<｜fim▁end｜>",
    ),
    "codellama": (("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"), "▁<PRE>{before}▁<SUF>{after}▁<MID>"),
    "codestral": (("[PREFIX]", "[SUFFIX]", "[MIDDLE]"), "[SUFFIX]{after}[PREFIX]{before}"),
    "glm": (
        ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
        "<|code_prefix|>{before}<|code_suffix|>{after}<|code_middle|>",
    ),
    "seed": (
        ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
        "<[fim-suffix]>{after}<[fim-prefix]>{before}<[fim-middle]>",
    ),
}


def tokenizer_with(
    *tokens: str, special: bool = True, words: tuple[str, ...] = (), bos: bool = False
) -> Tokenizer:
    inner = byte_tokenizer(words)._inner
    add = inner.add_special_tokens if special else inner.add_tokens
    add([AddedToken(token, special=special) for token in tokens])
    if bos:
        token = inner.token_to_id("<s>")
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", token)])
    return Tokenizer(inner, {"eos_token": EOS})


def server_with(tokenizer: Tokenizer, **parts: Any) -> AppState:
    return a_server(tokenizer=tokenizer, **parts)


def prompt_of(server: AppState) -> str:
    return server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("special", [True, False])
def test_a_prompt_is_written_as_the_family_was_trained(family: str, special: bool) -> None:
    tokens, form = FAMILIES[family]
    server = server_with(tokenizer_with(*tokens, special=special))
    assert complete(server, prompt="def f(", suffix="  return x\n").status_code == 200
    assert prompt_of(server) == form.format(before="def f(", after="  return x\n")


def test_the_beginning_of_sequence_comes_first() -> None:
    server = server_with(tokenizer_with(*QWEN, bos=True))
    complete(server, prompt="a", suffix="b")
    assert prompt_of(server) == "<s><|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    complete(server, prompt="a", suffix="b", add_special_tokens=False)
    assert prompt_of(server) == "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"


@pytest.mark.parametrize("text", [*QWEN, EOS, "<s>", "x<|fim_mid", "<|fim_prefix|><|fim_suffix|>", MARK])
def test_control_tokens_in_the_texts_are_text(text: str) -> None:
    tokenizer = tokenizer_with(*QWEN)
    server = server_with(tokenizer)
    complete(server, prompt=text, suffix=text)
    ids = backend_of(server).prompts[-1].token_ids
    before, after, middle = (tokenizer.token_to_id(token) for token in QWEN)
    bytes_of_text = [spell(tokenizer, chr(byte)) if byte < 128 else None for byte in text.encode()]
    length = len(bytes_of_text)
    assert [ids[0], ids[length + 1], ids[-1]] == [before, after, middle]
    assert tokenizer.special_ids.isdisjoint(ids[1 : length + 1])
    assert tokenizer.special_ids.isdisjoint(ids[length + 2 : -1])
    assert tokenizer.decode(ids[1 : length + 1], skip_special_tokens=False) == text


def test_a_marker_without_its_space_is_text_too() -> None:
    tokenizer = tokenizer_with("▁<PRE>", "▁<SUF>", "▁<MID>")
    server = server_with(tokenizer)
    complete(server, prompt="▁<PRE> <SUF>", suffix="<MID>")
    found = backend_of(server).prompts[-1].token_ids
    assert sum(token in tokenizer.special_ids for token in found) == 3


@given(st.text("ab <|_>fim", max_size=20), st.text("ab <|_>fim", max_size=20))
def test_the_prompt_has_the_three_markers_and_the_texts(before: str, after: str) -> None:
    tokenizer = SHARED_TOKENIZER
    server = SHARED_SERVER
    if not after:
        return
    complete(server, prompt=before, suffix=after)
    ids = backend_of(server).prompts.pop().token_ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == FAMILIES["qwen"][1].format(
        before=before, after=after
    )
    assert sum(token in tokenizer.special_ids for token in ids) == 3


SHARED_TOKENIZER = tokenizer_with(*QWEN)
SHARED_SERVER = server_with(SHARED_TOKENIZER)


def test_a_suffix_does_not_begin_with_a_space_that_the_tokenizer_adds() -> None:
    inner = llama2()
    inner.add_special_tokens([AddedToken(token, special=True) for token in ("<PRE>", "<SUF>", "<MID>")])
    tokenizer = Tokenizer(inner, {})
    middle = require_fill_in_middle(tokenizer)
    text, anchor = middle.suffix_text("a lo", tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)[anchor:]
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"a lo"
    assert (
        b"".join(map(tokenizer.token_bytes, tokenizer.encode("a lo", add_special_tokens=False))) == b" a lo"
    )


def test_a_prompt_may_be_tokens() -> None:
    server = server_with(tokenizer_with(*QWEN))
    ids = server.tokenizer.encode("ab", add_special_tokens=False)
    complete(server, prompt=ids, suffix="c")
    assert prompt_of(server) == "<|fim_prefix|>ab<|fim_suffix|>c<|fim_middle|>"


def test_each_of_several_prompts_has_the_suffix() -> None:
    server = server_with(tokenizer_with(*QWEN))
    complete(server, prompt=["a", "bb"], suffix="c", max_tokens=1)
    decoded = {
        server.tokenizer.decode(prompt.token_ids, skip_special_tokens=False)
        for prompt in backend_of(server).prompts
    }
    assert decoded == {
        "<|fim_prefix|>a<|fim_suffix|>c<|fim_middle|>",
        "<|fim_prefix|>bb<|fim_suffix|>c<|fim_middle|>",
    }


def test_the_markers_and_the_ends_of_files_stop_the_output() -> None:
    server = server_with(tokenizer_with(*QWEN, "<|file_sep|>"))
    complete(server, prompt="a", suffix="b", stop_token_ids=[5])
    ids = [server.tokenizer.token_to_id(token) for token in (*QWEN, "<|file_sep|>")]
    assert backend_of(server).prompts[-1].sampling.stop_token_ids == (5, *ids)
    complete(server, prompt="a", suffix="b", ignore_eos=True)
    assert backend_of(server).prompts[-1].sampling.stop_token_ids == ()


def test_whole_and_streamed_responses_have_the_middle_only() -> None:
    tokenizer = tokenizer_with(*QWEN, words=("Hello", " world", "!"))
    server = server_with(tokenizer)
    whole = complete(server, prompt="a", suffix="b").json()
    assert whole["choices"][0]["text"] == "Hello world!"
    assert whole["usage"]["prompt_tokens"] == 5
    chunks = events(complete(server, prompt="a", suffix="b", stream=True))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello world!"


@pytest.mark.parametrize("stream", [False, True])
def test_a_tokenizer_without_the_tokens_is_a_clear_error(stream: bool) -> None:
    response = complete(a_server(), prompt="a", suffix="b", stream=stream)
    error = error_of(response)
    assert (response.status_code, error["param"], error["code"]) == (400, "suffix", "unsupported_parameter")
    assert "middle" in error["message"]


@pytest.mark.parametrize("suffix", ["", None])
def test_an_empty_suffix_is_an_ordinary_completion(suffix: str | None) -> None:
    server = server_with(tokenizer_with(*QWEN))
    assert complete(server, prompt="a", suffix=suffix, echo=True).status_code == 200
    assert prompt_of(server) == "a"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"suffix": 5}, "suffix"),
        ({"suffix": ["a"]}, "suffix"),
        ({"suffix": "a", "echo": True}, "echo"),
        ({"suffix": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ({"suffix": "a" * 600}, "suffix"),
        ({"suffix": "a" * 300, "prompt": "a" * 300}, "prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_invalid_request_names_the_field(body: dict[str, Any], param: str) -> None:
    response = complete(server_with(tokenizer_with(*QWEN)), **{"prompt": "x", **body})
    assert (response.status_code, error_of(response)["param"]) == (400, param)
