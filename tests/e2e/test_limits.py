"""Request timeout and client limits of a real server, with a backend that generates endlessly."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from support.http_server import Server
from support.model_scripts import LLAMA31_WEATHER, write_script
from support.paths import SUPPORT

from fllm.testing import Serve

UNHEALTHY_PLUGIN = SUPPORT / "unhealthy_plugin.py"
ENDLESS = {"model": "m", "prompt": "a", "max_tokens": 10_000}


@pytest.fixture(scope="module")
def limited(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    directory = tmp_path_factory.mktemp("unhealthy")
    write_script(LLAMA31_WEATHER, directory)
    limits = ("--request-timeout", "1", "--limit", "concurrency=1", "--limit", "tokens-per-minute=100000")
    return serve(directory, "--plugin", UNHEALTHY_PLUGIN, "--backend", "unhealthy", *limits)


def ask(server: Server, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.api}/completions", json={**ENDLESS, **body}, timeout=30)


def test_a_request_that_takes_too_long_is_a_504(limited: Server) -> None:
    response = ask(limited)
    assert (response.status_code, response.json()["error"]["type"]) == (504, "timeout_error")


def test_a_stream_that_takes_too_long_ends_with_an_error(limited: Server) -> None:
    *_, last, done, _ = ask(limited, stream=True).text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
    assert done == "data: [DONE]"


def test_a_client_has_a_limited_number_of_concurrent_requests(limited: Server) -> None:
    with httpx.stream("POST", f"{limited.api}/completions", json={**ENDLESS, "stream": True}) as first:
        pieces = first.iter_raw()  # kept, since httpx closes the connection when it is garbage-collected
        next(pieces)
        refused = ask(limited, max_tokens=1)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["x-ratelimit-limit-tokens"] == "100000"
    for _ in range(100):  # until the server has noticed the disconnect
        if ask(limited, max_tokens=1).status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError("the aborted request is still counted")
