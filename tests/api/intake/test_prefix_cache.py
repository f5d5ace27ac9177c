"""The salt of a request, by which clients share the prefix cache or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.api_fakes import a_server, ask, backend_of, error_of

from fllm_api.api_keys import ApiKeys
from fllm_api.app_state import AppState
from fllm_api.intake.prefix_cache import common_length

PATHS = ("/v1/chat/completions", "/v1/completions")
MESSAGES = [{"role": "user", "content": "Hi"}]


def salted(**parts: Any) -> AppState:
    config = {"keys": ApiKeys(("one", "two"))}
    return a_server(config=config, card={"supports_cache_salt": True}, **parts)


def send(server: AppState, key: str = "one", path: str = PATHS[0], **body: Any) -> str:
    """Send a request; return the salt that reaches the backend."""
    prompt = {"messages": MESSAGES} if path == PATHS[0] else {"prompt": "Hi"}
    headers = {"authorization": f"Bearer {key}"}
    response = ask(server, "POST", path, json={"model": "m", **prompt, **body}, headers=headers)
    assert response.status_code == 200, response.text
    return backend_of(server).prompts[-1].cache_salt


@pytest.mark.parametrize("path", PATHS)
def test_each_key_has_its_own_salt(path: str) -> None:
    server = salted(isolates_clients=True)
    one, again, two = (send(server, key, path) for key in ("one", "one", "two"))
    assert one == again != two
    assert len(one) == 64


@pytest.mark.parametrize("path", PATHS)
def test_a_requests_own_salt_is_mixed_with_that_of_its_key(path: str) -> None:
    server = salted(isolates_clients=True)
    pairs = [(key, salt) for key in ("one", "two") for salt in (None, "a", "b")]
    salts = [send(server, key, path, cache_salt=salt) for key, salt in pairs]
    assert len(set(salts)) == len(pairs)
    assert salts == [send(server, key, path, cache_salt=salt) for key, salt in pairs]


def test_the_keys_of_an_owner_have_one_salt(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("ann first\nann second\nbob third\n")
    keys = ApiKeys()
    keys.load(file)
    server = a_server(config={"keys": keys}, card={"supports_cache_salt": True}, isolates_clients=True)
    first, second, third = (send(server, key) for key in ("first", "second", "third"))
    assert first == second != third


def test_a_client_cannot_send_the_salt_of_another() -> None:
    server = salted(isolates_clients=True)
    stolen = send(server, "one")
    assert send(server, "two", cache_salt=stolen) != stolen


def test_another_server_has_other_salts() -> None:
    assert send(salted(isolates_clients=True)) != send(salted(isolates_clients=True))


@pytest.mark.parametrize("path", PATHS)
def test_without_isolation_the_salt_is_the_requests_own(path: str) -> None:
    server = salted()
    assert [send(server, key, path, cache_salt="a") for key in ("one", "two")] == ["a", "a"]
    assert send(server, path=path) == send(server, path=path, cache_salt=None) == ""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("salt", ["", "a" * 1025, 7, ["a"], {}])
def test_an_invalid_salt_is_rejected(path: str, salt: Any) -> None:
    body = {"model": "m", "messages": MESSAGES, "prompt": "Hi", "cache_salt": salt}
    response = ask(a_server(card={"supports_cache_salt": True}), "POST", path, json=body)
    assert (response.status_code, error_of(response)["param"]) == (400, "cache_salt")


@pytest.mark.parametrize("path", PATHS)
def test_a_salt_is_rejected_if_the_backend_does_not_support_it(path: str) -> None:
    body = {"model": "m", "messages": MESSAGES, "prompt": "Hi", "cache_salt": "a"}
    error = error_of(ask(a_server(), "POST", path, json=body))
    assert (error["param"], error["code"]) == ("cache_salt", "unsupported_parameter")


def test_all_sequences_of_a_request_have_its_salt() -> None:
    server = salted(isolates_clients=True)
    send(server, path=PATHS[1], prompt=["Hi", "Ho"], n=2)
    assert len({request.cache_salt for request in backend_of(server).prompts}) == 1
    assert len(backend_of(server).prompts) == 4


def test_each_prompt_has_its_number_of_shared_tokens() -> None:
    server = salted()
    encode = server.tokenizer.encode
    prefixes = [encode(text, add_special_tokens=False) for text in ("Hello", "Help me")]
    server = salted(shared_prefixes=lambda: prefixes)
    prompts = ["Hello, you", "Help", "Help me!", "hello", "H"]
    send(server, path=PATHS[1], prompt=prompts)
    requests = sorted(backend_of(server).prompts, key=lambda request: request.request_id)
    assert [request.shared_tokens for request in requests] == [5, 4, 7, 0, 1]


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [([], [1], 0), ([1], [1], 1), ([1, 2, 3], [1, 2], 2), ([1, 2, 9], [1, 2, 3], 2), ([2, 1], [1, 2], 0)],
)
def test_the_common_length_ends_at_the_first_difference(
    left: list[int], right: list[int], length: int
) -> None:
    assert common_length(left, right) == common_length(right, left) == length
