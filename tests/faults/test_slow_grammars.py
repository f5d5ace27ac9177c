"""A client whose grammars are slow, next to another one, on the embedded model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from support.fault_table import Seen, fault
from support.http_server import Server, serving

AMBIGUOUS = 'start: e\ne: e e | "a" | "b" | "ab" | /[a-z ]/ | /[a-z]+/'
"""Each token takes longer than the one before: 40 ms after 44 tokens, 300 ms after 100."""
AMBIGUOUS_WHATEVER_IS_SAMPLED = 'start: e\ne: e e | /[ab]/ | "a" | "b"'
"""The same for every text, since each character has the same alternatives: 160 to 250 tokens of budget."""
HOSTILE = 12
SHARE = 0.2
"""What the other client keeps at least; without bounds it keeps less than a hundredth."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one server with two keys for all these faults."""
    keys = ("--api-key", "normal-key", "--api-key", "hostile-key")
    with serving("--served-model-name", "m", "--max-model-len", "2048", *keys) as running:
        yield running


def body(tokens: int, **options: Any) -> dict[str, Any]:
    """Return the body of a Completions request that does not end before ``tokens`` tokens."""
    return {"model": "m", "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, **options}


def complete(server: Server, key: str, tokens: int, **options: Any) -> httpx.Response:
    """Send a request with a key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.api}/completions", json=body(tokens, **options), headers=headers, timeout=120)


@contextmanager
def slow_stream(server: Server) -> Iterator[None]:
    """Run a stream with a slow grammar."""
    asked = body(1500, guided_grammar=AMBIGUOUS, stream=True)
    headers = {"Authorization": "Bearer hostile-key"}
    with httpx.stream(
        "POST", f"{server.api}/completions", json=asked, headers=headers, timeout=120
    ) as response:
        assert response.status_code == 200, response.read()
        yield


def rate(server: Server, tokens: int = 96) -> float:
    """Return the output tokens/s of the normal client."""
    start = time.monotonic()
    response = complete(server, "normal-key", tokens)
    assert response.status_code == 200, response.text
    return tokens / (time.monotonic() - start)


@fault(
    "Grammars",
    f"{HOSTILE} requests of one client have a grammar whose masks take longer with each token",
    must="Another client keeps its speed, also with a grammar of its own",
)
def test_slow_grammars_do_not_starve_the_batch(server: Server, seen: Seen) -> None:
    rate(server)
    alone = rate(server)
    with ExitStack() as streams:
        for _ in range(HOSTILE):
            streams.enter_context(slow_stream(server))
        time.sleep(2)  # until the masks are slow
        beside = rate(server)
        constrained = complete(server, "normal-key", 16, guided_regex="[0-9]+")
    assert constrained.json()["usage"]["completion_tokens"] == 16, constrained.text
    assert beside > SHARE * alone, (alone, beside)
    seen(f"{beside:.0f} tokens/s, {alone:.0f} alone")


@fault(
    "Grammars",
    "The masks of a grammar take longer with each token, without an end",
    must="Only its request fails, with 400, after a few seconds of processor time",
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_sequence_has_a_budget_for_its_masks(stream: bool, server: Server, seen: Seen) -> None:
    start = time.monotonic()
    response = complete(
        server, "hostile-key", 1500, guided_grammar=AMBIGUOUS_WHATEVER_IS_SAMPLED, stream=stream
    )
    took = time.monotonic() - start
    assert response.status_code == (200 if stream else 400), response.text
    assert "the grammar is too slow" in response.text
    assert rate(server)
    seen(f"{'an error event' if stream else '400'}, “the grammar is too slow ...”, after {took:.1f} s")
