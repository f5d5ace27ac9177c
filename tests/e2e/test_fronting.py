"""A server of ours in front of another one of ours, on the real model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from support.http_server import Server, run, serving

from fllm.model.source import locate

MODEL = locate().location
STORY = {"model": "m", "prompt": "Once upon a time", "temperature": 0}
KEY = "sesame"


def fronting(upstream: Server, *arguments: str, **options: str) -> tuple[str, ...]:
    given = {"url": upstream.api, **options}
    pairs = (("--backend-option", f"{key}={value}") for key, value in given.items())
    return (MODEL, "--backend", "openai", *(word for pair in pairs for word in pair), *arguments)


@pytest.fixture(scope="module")
def front(server: Server) -> Iterator[Server]:
    with serving(*fronting(server, "--tool-call-parser", "llama3_json")) as running:
        yield running


def answer(server: Server, path: str, body: dict[str, object]) -> dict[str, object]:
    got = httpx.post(f"{server.api}{path}", json=body, timeout=60)
    assert got.status_code == 200, got.text
    kept = {"choices", "usage"}
    return {key: value for key, value in got.json().items() if key in kept}


def in_flight(server: Server) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    lines = [line for line in page.splitlines() if re.match(r"\w+[:_]num_requests_running\b", line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def wait_until(wanted: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completions", STORY | {"max_tokens": 24}),
        ("/completions", STORY | {"max_tokens": 6, "logprobs": 2, "echo": True}),
        ("/completions", STORY | {"max_tokens": 24, "n": 2, "temperature": 1.0, "seed": 7}),
        ("/completions", STORY | {"max_tokens": 24, "stop": "there"}),
        (
            "/chat/completions",
            {
                "model": "m",
                "messages": [{"role": "user", "content": "Three emojis, and the capital of France."}],
                "max_tokens": 24,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 1,
            },
        ),
    ],
)
def test_the_answer_through_the_front_is_the_direct_one(
    server: Server, front: Server, path: str, body: dict[str, object]
) -> None:
    direct, through = answer(server, path, body), answer(front, path, body)
    assert through["choices"] == direct["choices"]
    # The second finds the first's prompt in the cache.
    counts = [{k: v for k, v in each["usage"].items() if k.endswith("tokens")} for each in (direct, through)]  # type: ignore[attr-defined]
    assert counts[0] == counts[1]


def test_text_alone_gives_the_same_answer(server: Server) -> None:
    body = STORY | {"max_tokens": 24}
    with serving(*fronting(server, send="text", receive="text")) as front:
        through, direct = answer(front, "/completions", body), answer(server, "/completions", body)
    assert through["choices"] == direct["choices"]


def test_a_stream_comes_through_piece_by_piece(front: Server) -> None:
    body = STORY | {"max_tokens": 12, "stream": True}
    with httpx.stream("POST", f"{front.api}/completions", json=body, timeout=60) as stream:
        events = [line for line in stream.iter_lines() if line]
    assert events[-1] == "data: [DONE]"
    assert len(events) > 3


def test_a_client_that_leaves_ends_the_work_behind(server: Server, front: Server) -> None:
    body = STORY | {"max_tokens": 3500, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{front.api}/completions", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        wait_until(lambda: in_flight(server) == 1)
    wait_until(lambda: in_flight(server) == 0)


def test_a_server_that_dies_in_the_middle_is_an_error_in_the_stream() -> None:
    body = STORY | {"max_tokens": 3500, "ignore_eos": True, "stream": True}
    with (
        serving("--max-model-len", "4096", "--api-key", KEY) as mortal,
        serving(*fronting(mortal, api_key=KEY)) as front,
    ):
        with httpx.stream("POST", f"{front.api}/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            mortal.process.kill()
            mortal.process.wait()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
        assert httpx.post(f"{front.api}/completions", json=STORY).status_code == 503
        refused = run("serve", *fronting(mortal, api_key=KEY))
        assert refused.returncode == 2
        assert "can't be reached" in refused.stderr


def test_a_server_that_wants_a_key_is_a_user_error_without_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serving("--max-model-len", "256", "--api-key", KEY) as locked:
        refused = run("serve", *fronting(locked, api_key="wrong"))
    assert refused.returncode == 2
    assert "401" in refused.stderr
    assert "Traceback" not in refused.stderr
