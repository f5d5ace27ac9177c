"""Limits of a real server, over a backend that generates without end."""

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

MOODY_PLUGIN = SUPPORT / "unhealthy_plugin.py"
ENDLESS = {"model": "m", "prompt": "a", "max_tokens": 10_000}


@pytest.fixture(scope="module")
def limited(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Server:
    directory = tmp_path_factory.mktemp("moody")
    write_script(LLAMA31_WEATHER, directory)
    limits = ("--request-timeout", "1", "--limit", "concurrency=1", "--limit", "tokens-per-minute=100000")
    return serve(directory, "--plugin", MOODY_PLUGIN, "--backend", "moody", *limits)


def ask(server: Server, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.api}/completions", json={**ENDLESS, **body}, timeout=30)


def test_an_answer_that_takes_too_long_is_a_504(limited: Server) -> None:
    answer = ask(limited)
    assert (answer.status_code, answer.json()["error"]["type"]) == (504, "timeout_error")


def test_a_stream_that_takes_too_long_ends_with_an_error(limited: Server) -> None:
    *_, last, done, _ = ask(limited, stream=True).text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
    assert done == "data: [DONE]"


def test_a_client_has_so_many_requests_in_flight(limited: Server) -> None:
    with httpx.stream("POST", f"{limited.api}/completions", json={**ENDLESS, "stream": True}) as first:
        pieces = first.iter_raw()  # kept, since httpx hangs up when it is forgotten
        next(pieces)
        refused = ask(limited, max_tokens=1)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.headers["x-ratelimit-limit-tokens"] == "100000"
    for _ in range(100):  # until the server has seen it leave
        if ask(limited, max_tokens=1).status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError("it has left, and still counts")
