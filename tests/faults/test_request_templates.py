"""A template in a request that uses all that Jinja offers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fault_server import ask
from support.fault_table import Seen, fault
from support.http_server import Server, serving

from fllm.testing import ECHO_PLUGIN, echo_model

FAILING = {
    "a rare encoding": "{{ 'é'.encode('koi8-r') }}",
    "a file": "{% include '/etc/passwd' %}",
    "an object": "{{ raise_exception(lipsum) }}",
    "a method": "{{ raise_exception(''.join) }}",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    model = echo_model(tmp_path_factory.mktemp("models") / "model")
    with serving(
        model, "--plugin", ECHO_PLUGIN, "--backend", "echo", "--trust-request-chat-template"
    ) as running:
        yield running


@fault(
    "Clients",
    "A template in a request uses `striptags`, rare encodings and objects of Python",
    must="It works, or 400 with a message that holds no path and no address",
)
def test_a_template_that_needs_more_modules(server: Server, seen: Seen) -> None:
    response = ask(server, "hello", chat_template="{{ '<b>a</b> &amp; b'|striptags }}")
    assert response.status_code == 200, response.text
    for template in FAILING.values():
        error = ask(server, "hello", chat_template=template)
        assert error.status_code == 400, error.text
        message = error.json()["error"]["message"]
        assert not [
            part for part in ("0x", sys.base_prefix, str(Path(__file__).parents[2])) if part in message
        ]
    seen("`striptags` worked, the others got a 400 without a path or an address")
