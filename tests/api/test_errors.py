"""What an error message may hold."""

from __future__ import annotations

import json

import pytest

import fllm_api
from fllm.errors import BackendError, RequestError
from fllm_api.errors import MAX_MESSAGE_CHARS, classify_error


@pytest.mark.parametrize("kind", [RequestError, BackendError])
def test_a_message_holds_no_address_and_no_path_of_the_installation(kind: type[Exception]) -> None:
    text = f"{classify_error!r} of {json.__file__!r} and {fllm_api.__file__}: no"
    _, body = classify_error(kind(text))
    assert body.message == "<function classify_error> of 'a file of the server' and a file of the server: no"


def test_other_paths_and_numbers_stay() -> None:
    text = "the model '/models/m' has no schema at /properties/0x12, 0x7f12345678 at index 3"
    assert classify_error(RequestError(text))[1].message == text


def test_a_message_that_quotes_a_long_value_is_cut() -> None:
    message = classify_error(RequestError("`tool_choice`: " + "x" * 10**6))[1].message
    assert len(message) == MAX_MESSAGE_CHARS + 3
    assert message.endswith("xxx...")
