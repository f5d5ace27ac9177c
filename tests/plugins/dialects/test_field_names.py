"""Errors name the fields that the client sent."""

from __future__ import annotations

import pytest

from fllm import ModelNotFound, RequestError
from fllm_dialects.field_names import field_names, renamed

NAMES = {
    "messages[3]": "input[2]",
    "messages[3].content[0]": "input[2].output",
    "max_completion_tokens": "max_output_tokens",
    "tools[0].function": "tools[0]",
    "messages": "input",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("max_completion_tokens", "max_output_tokens"),
        ("messages[3]", "input[2]"),
        ("messages[3].content", "input[2].content"),
        ("messages[3].content[0].type", "input[2].output.type"),
        ("messages[3].content[1].type", "input[2].content[1].type"),
        ("messages[33].content", "input[33].content"),
        ("tools[0].function.strict", "tools[0].strict"),
        ("max_completion_tokens_of_another", "max_completion_tokens_of_another"),
        ("temperature", "temperature"),
        ("", ""),
    ],
)
def test_the_longest_known_beginning_of_a_path_is_replaced(path: str, expected: str) -> None:
    assert renamed(path, NAMES) == expected


def test_an_error_names_the_clients_fields() -> None:
    with pytest.raises(RequestError) as caught, field_names(NAMES):
        raise RequestError(
            "`max_completion_tokens` is 0; see `messages[3].content`, messages and `a b`",
            param="max_completion_tokens",
            code="code",
        )
    error = caught.value
    assert str(error) == error.message
    assert error.message == "`max_output_tokens` is 0; see `input[2].content`, messages and `a b`"
    assert (error.param, error.code) == ("max_output_tokens", "code")


def test_the_class_of_an_error_stays_and_a_missing_param_too() -> None:
    with pytest.raises(ModelNotFound) as caught, field_names(NAMES):
        raise ModelNotFound("no `model`", param=None)
    assert caught.value.param is None
