"""Requests that exceed ``--request-timeout``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from support.api_fakes import backend_of, error_of
from support.stalled_server import Client, recorder_of, refused, stalled, with_client


@pytest.mark.parametrize("stalls_after", [0, 1])
def test_a_late_json_response_is_a_504(stalls_after: int):
    server = stalled(request_timeout=0.1)
    backend_of(server).stalls_after = stalls_after

    async def test(client: Client) -> None:
        response = await client.ask()
        assert refused(response, 504, "timeout")["type"] == "timeout_error"
        assert "0.1 s" in error_of(response)["message"]
        assert len(backend_of(server).aborted) == 1
        [request] = recorder_of(server).requests
        assert request.error == error_of(response)["message"]

    with_client(server, test)


def test_a_stream_that_has_not_begun_in_time_is_a_504():
    server = stalled(request_timeout=0.1)
    backend_of(server).stalls_after = 0

    async def test(client: Client) -> None:
        refused(await client.ask(stream=True), 504, "timeout")
        assert len(backend_of(server).aborted) == 1

    with_client(server, test)


def test_a_stream_that_is_late_ends_with_an_error_event():
    server = stalled(request_timeout=0.1)

    async def test(client: Client) -> None:
        response = await client.ask(stream=True)
        assert response.status_code == 200
        *_, last, done, end = response.text.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        error = json.loads(last.removeprefix("data: "))["error"]
        assert (error["type"], error["code"]) == ("timeout_error", "timeout")
        assert len(backend_of(server).aborted) == 1
        [request] = recorder_of(server).requests
        assert request.error == error["message"]

    with_client(server, test)


def test_all_sequences_of_a_late_request_are_aborted_and_its_place_is_free():
    server = stalled(max_queue=3, request_timeout=0.5)

    async def test(client: Client) -> None:
        refused(await client.ask(n=4), 504, "timeout")
        assert len(backend_of(server).aborted) == 4
        refused(await client.ask(n=4), 504, "timeout")

    with_client(server, test)


def test_a_body_that_never_arrives_is_a_504():
    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def test(client: Client) -> None:
        headers = {"content-type": "application/json"}
        response = await client.http.post("/v1/completions", content=body(), headers=headers)
        refused(response, 504, "timeout")

    with_client(stalled(request_timeout=0.1), test)
