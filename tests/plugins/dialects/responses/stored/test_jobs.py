"""Responses in the background: polled, streamed from any event on, cancelled, or failed."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.stored_responses import Client, full_disk, responses_server, running, stores_opened

from fllm_api.config import RateLimits
from fllm_dialects.responses.protocol.events import ErrorEvent
from fllm_dialects.responses.protocol.requests import ResponsesRequest
from fllm_dialects.responses.stored.history import Context
from fllm_dialects.responses.stored.jobs import FEW_STREAMS, Job
from fllm_dialects.responses.stored.response_records import mark_failed

BODY = {"model": "m", "input": "Hi", "background": True}
STREAMED = {**BODY, "stream": True}
LATER = {"background": True}
SAYS = {"role": "user", "content": "Hi"}


def types(events: list[dict[str, Any]]) -> list[str]:
    """Return the types of events, after checking their numbers."""
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return [event["type"].removeprefix("response.") for event in events]


async def in_progress(client: Client) -> Any:
    """Return a response in the background that waits for the gate of its backend."""
    response = await client.create("Hi", background=True)
    return await client.until(response["id"], "in_progress")


def test_a_response_in_the_background_is_polled(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            queued = await client.create("Hi", background=True, metadata={"a": "b"})
            assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
            path = f"/v1/responses/{queued['id']}"
            await client.until(queued["id"], "in_progress")
            error = (await client.create("Go", 400, previous_response_id=queued["id"]))["error"]
            assert "is not complete" in error["message"]
            client.backend.gate.set()
            response = await client.until(queued["id"], "completed")
            assert response["output"][0]["content"][0]["text"] == "Hello world!"
            assert (response["created_at"], response["metadata"]) == (queued["created_at"], {"a": "b"})
            items = await client.get(f"{path}/input_items")
            assert items["data"][0]["content"][0]["text"] == "Hi"
            assert (await client.get(path, 400, stream=True))["error"]["param"] == "stream"
        async with running(responses_server(tmp_path)) as client:
            assert await client.get(path) == response
            await client.create("Go", previous_response_id=queued["id"])

    asyncio.run(run())


def test_a_stream_is_resumed_while_it_runs_and_after_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            whole = asyncio.create_task(client.events("POST", "/v1/responses", json=STREAMED))
            response_id = await client.running_job()
            path = f"/v1/responses/{response_id}"
            resumed = asyncio.create_task(client.events("GET", f"{path}?stream=true&starting_after=3"))
            await asyncio.sleep(0.05)
            assert not whole.done()
            client.backend.gate.set()
            events = await whole
            assert types(events)[:4] == ["created", "queued", "in_progress", "output_item.added"]
            assert (types(events)[-1], events[0]["sequence_number"]) == ("completed", 0)
            assert [event["response"]["status"] for event in events[:3]] == [
                "queued",
                "queued",
                "in_progress",
            ]
            assert await resumed == events[4:]
            assert events[-1]["response"] == await client.get(path)
        async with running(responses_server(tmp_path)) as client:
            for after in (-1, 0, 5, len(events) - 2):
                query = f"stream=true{f'&starting_after={after}' if after >= 0 else ''}"
                assert await client.events("GET", f"{path}?{query}") == events[after + 1 :]
            assert await client.events("GET", f"{path}?stream=true&starting_after=1000") == []
            error = (await client.get(path, 400, stream=True, starting_after=-5))["error"]
            assert error["param"] == "starting_after"

    asyncio.run(run())


def test_comments_keep_a_stream_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_dialects.responses.stored.events.COMMENT_INTERVAL", 0.01)

    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            whole = asyncio.create_task(client.events("POST", "/v1/responses", json=STREAMED))
            path = f"/v1/responses/{await client.running_job()}?stream=true"
            resumed = asyncio.create_task(client.http.get(path))
            await asyncio.sleep(0.1)
            client.backend.gate.set()
            text = (await resumed).text
            assert text.count(": keep-alive\n\n") > 1
            assert text.count("event: ") == len(await whole)

    asyncio.run(run())


def test_an_item_may_have_any_id(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path)) as client:
            given = [{"type": "message", "id": "events", "role": "user", "content": "Hi"}]
            events = await client.events("POST", "/v1/responses", json={**STREAMED, "input": given})
            response_id = events[0]["response"]["id"]
            items = await client.get(f"/v1/responses/{response_id}/input_items")
            assert [item["id"] for item in items["data"]] == ["events"]
            assert await client.events("GET", f"/v1/responses/{response_id}?stream=true") == events

    asyncio.run(run())


def test_many_streams_of_a_response_receive_larger_parts() -> None:
    async def parts(streams: int) -> list[int]:
        """Return the number of parts of each stream of 20 events."""
        encoder: Any = SimpleNamespace(response=None)
        request: Any = None
        job = Job(ResponsesRequest(stream=True), Context(), encoder, request, "client")

        async def count() -> int:
            received = [part async for part in job.stream(-1)]
            assert [event.text for part in received for event in part] == job.events
            return len(received)

        tasks = [asyncio.create_task(count()) for _ in range(streams)]
        for number in range(20):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            job.publish([ErrorEvent(sequence_number=number, code=None, message="x", param=None)])
        job.end([])
        return await asyncio.gather(*tasks)

    assert min(asyncio.run(parts(FEW_STREAMS))) > 5
    assert max(asyncio.run(parts(10 * FEW_STREAMS))) < 5


def test_a_response_is_cancelled(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            stream = asyncio.create_task(client.events("POST", "/v1/responses", json=STREAMED))
            path = f"/v1/responses/{await client.running_job()}"
            cancelled = await client.call("POST", f"{path}/cancel")
            assert cancelled["status"] == "cancelled"
            assert cancelled["output"][0]["status"] == "incomplete"
            assert client.backend.aborted
            assert await client.call("POST", f"{path}/cancel") == await client.get(path) == cancelled
            events = await stream
            assert (types(events)[-1], events[-1]["response"]) == ("incomplete", cancelled)
            running_one = await in_progress(client)
            await client.call("DELETE", f"/v1/responses/{running_one['id']}")
            await client.get(f"/v1/responses/{running_one['id']}", 404)
            assert len(client.backend.aborted) == 2

    asyncio.run(run())


def test_a_client_has_a_limited_number_of_responses_in_the_background(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True, options={"max_background": 2})) as client:
            for _ in range(2):
                await client.create("Hi", background=True)
            error = (await client.create("Hi", 429, background=True))["error"]
            assert (error["param"], error["code"]) == ("background", "rate_limit_exceeded")
            await client.create("Hi", 400, background=True, tools=[{"type": "web_search"}])
            client.backend.gate.set()

    asyncio.run(run())


def test_the_memory_of_responses_in_the_background_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            monkeypatch.setattr("fllm_dialects.responses.stored.jobs.MAX_JOB_BYTES", 2500)
            await client.create(
                [{"type": "reasoning", "summary": [], "encrypted_content": "x" * 900}, SAYS], **LATER
            )
            monkeypatch.setattr("fllm_dialects.responses.stored.jobs.SIZE_STEP", 0)
            body = {"encrypted_content": "x" * 2000, "type": "reasoning", "summary": []}
            error = (await client.create([body, SAYS], 503, **LATER))["error"]
            assert (error["param"], error["code"]) == ("background", "server_busy")
            client.backend.gate.set()
            # The events of this one exceed the limit.
            events = await client.events("POST", "/v1/responses", json=STREAMED)
            assert types(events)[-1] == "failed"
            assert "memory" in events[-1]["response"]["error"]["message"]

    asyncio.run(run())


def test_a_client_at_its_limit_receives_what_is_generated_for_it(tmp_path: Path) -> None:
    async def run() -> None:
        config = {"limits": RateLimits(concurrency=1)}
        async with running(responses_server(tmp_path, gated=True, config=config)) as client:
            stream = asyncio.create_task(client.events("POST", "/v1/responses", json=STREAMED))
            path = f"/v1/responses/{await client.running_job()}"
            other = asyncio.create_task(client.events("GET", f"{path}?stream=true"))
            assert (await client.create("Hi", 429))["error"]["code"] == "rate_limit_exceeded"
            client.backend.gate.set()
            assert await other == await stream
            cancelled = await client.call("POST", f"{path}/cancel")
            assert cancelled["status"] == "completed"

    asyncio.run(run())


def test_a_failure_in_the_background_is_a_failed_response(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path)) as client:
            client.backend.fails_after = 1
            events = await client.events("POST", "/v1/responses", json=STREAMED)
            response = events[-1]["response"]
            assert types(events)[-2:] == ["error", "failed"]
            assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
            assert "secret" not in str(events)
            assert await client.get(f"/v1/responses/{response['id']}") == response

    asyncio.run(run())


def test_what_runs_when_the_server_stops_has_failed_after_the_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path, gated=True)) as client:
            response_id = (await in_progress(client))["id"]
        async with running(responses_server(tmp_path)) as client:
            response = await client.get(f"/v1/responses/{response_id}")
            assert (response["status"], response["output"][0]["status"]) == ("failed", "incomplete")
            assert "the server stopped" in response["error"]["message"]

    asyncio.run(run())


def test_what_ran_when_the_server_was_killed_has_failed_after_the_restart(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(responses_server(tmp_path / "one", gated=True)) as client:
            asyncio.create_task(client.events("POST", "/v1/responses", json=STREAMED))  # noqa: RUF006
            response_id = await client.running_job()
            # As the files are after a SIGKILL, which releases the lock of the server.
            (tmp_path / "two").mkdir(mode=0o700)
            for file in (tmp_path / "one").glob("*sqlite3*"):
                if "-server-" not in file.name:
                    shutil.copy(file, tmp_path / "two")
            client.backend.gate.set()
            await client.until(response_id, "completed")
        async with running(responses_server(tmp_path / "two")) as client:
            response = await client.until(response_id, "failed")
            assert "the server stopped" in response["error"]["message"]
            events = await client.events("GET", f"/v1/responses/{response_id}?stream=true&starting_after=7")
            assert (types(events), events[0]["sequence_number"]) == (["failed"], 8)

    asyncio.run(run())


def test_a_response_that_ends_while_it_is_looked_for_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = stores_opened(monkeypatch)

    async def run() -> None:
        async with running(responses_server(tmp_path)) as client:
            response = await client.create("Hi", background=True)
            completed = await client.until(response["id"], "completed")
            server = opened[0].server
            await opened[0].write(
                lambda records: mark_failed(records, response["id"], "", server=server, reason="lost")
            )
            assert await client.get(f"/v1/responses/{response['id']}") == completed

    asyncio.run(run())


def test_a_response_that_cannot_be_stored_has_failed_and_is_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = stores_opened(monkeypatch)
    monkeypatch.setattr("fllm_dialects.responses.stored.jobs.CLAIM_INTERVAL", 0.0)
    monkeypatch.setattr("fllm_dialects.responses.stored.service.CHECK_INTERVAL", 0.01)
    words = tuple("0123456789" * 40)

    async def run() -> None:
        async with running(responses_server(tmp_path, words, gated=True)) as client:
            stream = asyncio.create_task(client.events("POST", "/v1/responses", json=STREAMED))
            response_id = await client.running_job()
            async with full_disk(opened[0]):
                client.backend.gate.set()
                events = await stream
                assert types(events)[-1] == "failed"
                assert "the disk" in events[-1]["response"]["error"]["message"]
                assert await client.get(f"/v1/responses/{response_id}") == events[-1]["response"]
            async with asyncio.timeout(5):
                while not await opened[0].read(lambda records: _is_stored(records, response_id)):
                    await asyncio.sleep(0.01)
            assert await client.events("GET", f"/v1/responses/{response_id}?stream=true") == events

    asyncio.run(run())


async def _is_stored(records: Any, response_id: str) -> bool:
    record = await records.get("response", response_id, "")
    return record is not None and not record.server


def test_two_servers_share_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fllm_dialects.responses.stored.service.CHECK_INTERVAL", 0.01)
    monkeypatch.setattr("fllm_dialects.responses.stored.service.POLL_INTERVAL", 0.01)

    async def run() -> None:
        servers = [responses_server(tmp_path, gated=True) for _ in range(2)]
        async with running(servers[0]) as one, running(servers[1]) as two:
            stream = asyncio.create_task(one.events("POST", "/v1/responses", json=STREAMED))
            path = f"/v1/responses/{await one.running_job()}"
            assert (await two.get(path))["status"] == "queued"
            other = asyncio.create_task(two.events("GET", f"{path}?stream=true"))
            await asyncio.sleep(0.05)
            one.backend.gate.set()
            assert await other == await stream
            one.backend.gate.clear()
            response = await in_progress(one)
            cancelled = await two.call("POST", f"/v1/responses/{response['id']}/cancel")
            assert cancelled["status"] == "cancelled"
            path = f"/v1/responses/{(await in_progress(one))['id']}"
            other = asyncio.create_task(two.events("GET", f"{path}?stream=true&starting_after=3"))
            await asyncio.sleep(0.05)
            await one.call("DELETE", path)
            [last] = await other
            assert last["sequence_number"] == 4
            # The other server looks after it was deleted, or between its end and that.
            assert "not found" in last.get("message", "") or last["response"]["status"] == "cancelled"

    asyncio.run(run())


def test_what_was_deleted_while_another_server_generated_it_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fllm_dialects.responses.stored.service.MAX_CANCEL_SECONDS", 0.01)

    async def run() -> None:
        servers = [responses_server(tmp_path, gated=True) for _ in range(2)]
        async with running(servers[0]) as one, running(servers[1]) as two:
            stream = asyncio.create_task(one.events("POST", "/v1/responses", json=STREAMED))
            path = f"/v1/responses/{await one.running_job()}"
            await two.call("DELETE", path)
            one.backend.gate.set()
            assert types(await stream)[-1] == "completed"
            for server in (one, two):
                await server.get(path, 404)

    asyncio.run(run())
