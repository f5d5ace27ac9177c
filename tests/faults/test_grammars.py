"""A grammar plugin that raises or hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.fault_server import (
    ask,
    assert_clean_exit,
    assert_healthy,
    engine,
    options,
    stream,
    wait_for_recovery,
)
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing.echo import echo_model

ONE_REQUEST_FAILS = "Only its request fails, with 500"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one server for all these faults; it must be healthy again after each."""
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    with serving(model, *options(), "--engine-timeout", "2") as running:
        yield running
        assert_clean_exit(running)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        pytest.param(word, expected, id=word, marks=fault("Grammars", what, must=must))
        for word, expected, what, must in [
            ("COMPILE RAISES", 500, "A grammar plugin raises in compile", ONE_REQUEST_FAILS),
            ("MATCHER RAISES", 500, "A grammar plugin raises in matcher", ONE_REQUEST_FAILS),
            ("FILL RAISES", 500, "A matcher raises in fill_bitmask", ONE_REQUEST_FAILS),
            ("FILL HANGS", 500, "A matcher hangs in fill_bitmask", ONE_REQUEST_FAILS),
            ("ACCEPT RAISES", 500, "A matcher raises in accept_token", ONE_REQUEST_FAILS),
            ("ACCEPT HANGS", 500, "A matcher hangs in accept_token", ONE_REQUEST_FAILS),
            ("NOTHING", 400, "A grammar allows no text", "400 with a message that says so"),
        ]
    ],
)
def test_a_grammar_breaks(word: str, expected: int, server: Server, seen: Seen) -> None:
    wait_for_recovery(server)
    before = engine(server)
    with stream(server, "one", tokens=40) as other:
        began = time.monotonic()
        response = ask(server, "hello", structured_outputs={"grammar": word})
        took = time.monotonic() - began
        assert response.status_code == expected, response.text
        message = response.json()["error"]["message"]
        assert other.end() == ""
    assert_healthy(server)
    assert engine(server) == before
    seen(f"{expected}, “{message}”, after {took:.1f} s; another stream was not affected")
