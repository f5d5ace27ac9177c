"""A server with the openai backend in front of another server, with the embedded model."""

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
    """Return the arguments of a server in front of ``upstream``."""
    options = {"url": upstream.api, **options}
    pairs = (("--backend-option", f"{key}={value}") for key, value in options.items())
    return (MODEL, "--backend", "openai", *(word for pair in pairs for word in pair), *arguments)


@pytest.fixture(scope="module")
def front(server: Server) -> Iterator[Server]:
    with serving(*fronting(server, "--tool-call-parser", "llama3_json")) as running:
        yield running


def post(server: Server, path: str, body: dict[str, object]) -> dict[str, object]:
    """Return the choices and the usage of a response."""
    response = httpx.post(f"{server.api}{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    kept = {"choices", "usage"}
    return {key: value for key, value in response.json().items() if key in kept}


def in_flight(server: Server) -> float:
    page = httpx.get(f"{server.url}/metrics").text
    lines = [line for line in page.splitlines() if re.match(r"\w+[:_]num_requests_running\b", line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def wait_until(wanted: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds:g} s"
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
def test_the_response_of_the_front_equals_the_direct_one(
    server: Server, front: Server, path: str, body: dict[str, object]
) -> None:
    direct, through = post(server, path, body), post(front, path, body)
    assert through["choices"] == direct["choices"]
    # The second request finds the prompt of the first one in the prefix cache.
    counts = [{k: v for k, v in each["usage"].items() if k.endswith("tokens")} for each in (direct, through)]  # type: ignore[attr-defined]
    assert counts[0] == counts[1]


def test_sending_and_receiving_only_text_gives_the_same_response(server: Server) -> None:
    body = STORY | {"max_tokens": 24}
    with serving(*fronting(server, send="text", receive="text")) as front:
        through, direct = post(front, "/completions", body), post(server, "/completions", body)
    assert through["choices"] == direct["choices"]


def test_a_stream_is_forwarded_in_pieces(front: Server) -> None:
    body = STORY | {"max_tokens": 12, "stream": True}
    with httpx.stream("POST", f"{front.api}/completions", json=body, timeout=60) as stream:
        events = [line for line in stream.iter_lines() if line]
    assert events[-1] == "data: [DONE]"
    assert len(events) > 3


def test_a_client_that_disconnects_aborts_the_upstream_request(server: Server, front: Server) -> None:
    body = STORY | {"max_tokens": 3500, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{front.api}/completions", json=body, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        wait_until(lambda: in_flight(server) == 1)
    wait_until(lambda: in_flight(server) == 0)


def test_an_upstream_that_dies_during_a_stream_is_an_error_event() -> None:
    body = STORY | {"max_tokens": 3500, "ignore_eos": True, "stream": True}
    with (
        serving("--max-model-len", "4096", "--api-key", KEY) as upstream,
        serving(*fronting(upstream, api_key=KEY)) as front,
    ):
        with httpx.stream("POST", f"{front.api}/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            upstream.process.kill()
            upstream.process.wait()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "unavailable")
        assert httpx.post(f"{front.api}/completions", json=STORY).status_code == 503
        refused = run("serve", *fronting(upstream, api_key=KEY))
        assert refused.returncode == 2
        assert "can't be reached" in refused.stderr


def test_a_wrong_upstream_key_is_a_user_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with serving("--max-model-len", "256", "--api-key", KEY) as locked:
        refused = run("serve", *fronting(locked, api_key="wrong"))
    assert refused.returncode == 2
    assert "401" in refused.stderr
    assert "Traceback" not in refused.stderr
