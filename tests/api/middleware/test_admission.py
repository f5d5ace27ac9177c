"""Requests that are rejected before anything is generated, because of a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.api_fakes import a_server, backend_of, error_of
from support.stalled_server import Client, recorder_of, refused, stalled, with_client

from fllm_api.config import RateLimits


def test_a_server_at_capacity_rejects_at_once_with_retry_after():
    async def test(client: Client) -> None:
        await client.begin()
        await client.begin()
        response = await client.ask()
        error = refused(response, 503, "server_busy")
        assert error["type"] == "server_error"
        assert "busy" in error["message"]
        assert response.headers["retry-after"] == "1"
        assert len(backend_of(client.server).prompts) == 2

    with_client(stalled(max_queue=1), test)


def test_the_body_of_a_rejected_request_is_not_read():
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body is read")
        yield b""

    async def test(client: Client) -> None:
        await client.begin()
        headers = {"content-type": "application/json"}
        response = await client.http.post("/v1/completions", content=body(), headers=headers)
        refused(response, 503, "server_busy")

    with_client(stalled(max_queue=0), test)


def test_a_rejected_request_is_reported_as_failed():
    server = stalled(max_queue=0)

    async def test(client: Client) -> None:
        await client.begin()
        await client.ask()
        [_, rejected] = recorder_of(server).requests
        assert rejected.error is not None
        assert "busy" in rejected.error
        assert rejected.finished_at is not None

    with_client(server, test)


def test_a_client_that_disconnects_makes_room():
    async def test(client: Client) -> None:
        first = await client.begin()
        refused(await client.ask(), 503, "server_busy")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await client.begin()

    with_client(stalled(max_queue=0), test)


def test_all_sequences_of_a_request_count():
    async def test(client: Client) -> None:
        await client.begin(prompt=["a", "b"], n=2)
        refused(await client.ask(n=2), 503, "server_busy")
        await client.begin()
        refused(await client.ask(), 503, "server_busy")

    with_client(stalled(max_queue=4), test)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"n": 6}, "n"),
        ({"best_of": 6}, "best_of"),
        ({"prompt": ["a"] * 6}, "prompt"),
        ({"prompt": ["a"] * 3, "n": 2}, "prompt"),
        ({"n": 2, "best_of": 6, "use_beam_search": True}, "best_of"),
    ],
)
def test_a_request_that_could_never_fit_is_invalid(body: dict[str, Any], field: str):
    async def test(client: Client) -> None:
        response = await client.ask(**body)
        assert (response.status_code, error_of(response)["param"]) == (400, field)
        await client.begin(n=5)

    with_client(stalled(max_queue=4), test)


def test_routes_without_the_engine_are_not_limited():
    async def test(client: Client) -> None:
        await client.begin()
        for path in ("/v1/models", "/health", "/version", "/ready"):
            assert (await client.http.get(path)).status_code == 200

    with_client(stalled(max_queue=0, limits=RateLimits(concurrency=1, tokens_per_minute=1)), test)


def test_requests_are_limited_by_client():
    async def test(client: Client) -> None:
        await client.begin(path="chat/completions", messages=[{"role": "user", "content": "Hi"}])
        response = await client.ask()
        assert refused(response, 429, "rate_limit_exceeded")["type"] == "rate_limit_error"
        assert response.headers["retry-after"] == "1"

    with_client(stalled(limits=RateLimits(concurrency=1)), test)


@pytest.mark.parametrize("body", [{"n": 3}, {"prompt": ["a", "b", "c"]}])
def test_what_exceeds_a_limit_of_the_client_alone_is_invalid(body: dict[str, Any]):
    """Other owners may have more, but to try again would never succeed."""
    limits, more = RateLimits(concurrency=2), {"big": RateLimits(concurrency=50)}

    async def test(client: Client) -> None:
        response = await client.ask(**body)
        error = error_of(response)
        assert response.status_code == 400
        assert error["param"] == next(iter(body))
        assert "needs 3 sequences, and 2 may be in flight at most" in error["message"]
        assert (await client.ask(n=2)).status_code == 200

    with_client(a_server(config={"limits": limits, "owner_limits": more}), test)


def test_tokens_are_limited_by_client():
    server = a_server(config={"limits": RateLimits(tokens_per_minute=6)})

    async def test(client: Client) -> None:
        first = await client.ask(prompt="12")
        assert first.status_code == 200
        assert first.headers["x-ratelimit-limit-tokens"] == "6"
        assert first.headers["x-ratelimit-remaining-tokens"] == "0"
        second = await client.ask()
        refused(second, 429, "rate_limit_exceeded")
        assert 1 <= int(second.headers["retry-after"]) <= 10
        assert second.headers["x-ratelimit-remaining-tokens"] == "0"
        assert len(backend_of(server).prompts) == 1

    with_client(server, test)


def test_without_limits_there_are_no_rate_limit_headers():
    async def test(client: Client) -> None:
        assert not [name for name in (await client.ask()).headers if "ratelimit" in name]

    with_client(a_server(), test)


def test_the_backend_receives_the_client():
    server = a_server()

    async def test(client: Client) -> None:
        await client.ask(n=2)
        await client.ask(best_of=2, use_beam_search=True, max_tokens=1)

    with_client(server, test)
    assert {prompt.client for prompt in backend_of(server).prompts} == {"ip:127.0.0.1"}
