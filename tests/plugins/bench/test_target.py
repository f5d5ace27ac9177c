"""Names and URLs of servers."""

from __future__ import annotations

import pytest

from fllm.errors import ConfigError
from fllm_bench.target import parse_target


@pytest.mark.parametrize(
    ("text", "name", "url"),
    [
        ("http://localhost:8000", "localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/", "localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "localhost:8000", "http://localhost:8000/v1"),
        ("https://host/openai/v1", "host", "https://host/openai/v1"),
        ("llama.cpp Q8_0=http://[::1]:81", "llama.cpp Q8_0", "http://[::1]:81/v1"),
        ("http://host/a=b", "host", "http://host/a=b"),
    ],
)
def test_a_server_is_a_url_that_may_have_a_name(text: str, name: str, url: str) -> None:
    server = parse_target(text)
    assert (server.name, server.url) == (name, url)


def test_a_given_name_wins_over_the_default() -> None:
    assert parse_target("http://host", "ours").name == "ours"
    assert parse_target("mine=http://host", "ours").name == "mine"


@pytest.mark.parametrize(
    "text", ["", "localhost:8000", "a=b", "ftp://host", "http://", "http://host:x", "http://a..b"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not \[NAME=\]URL"):
        parse_target(text)
