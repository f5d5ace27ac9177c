"""What `/page/machine` shows, and to whom."""

from __future__ import annotations

import asyncio
from typing import Any

from fllm.pipeline.request_tracker import RequestTracker
from fllm.testing import CollectorContract, RecordedRequest, ScriptedServer
from fllm.values import EngineStats
from fllm_api.api_keys import ApiKeys
from fllm_page import plugin
from fllm_page.request_log import MAX_CHARS, MAX_REFUSALS, MAX_REQUESTS, RequestLog

HI = {"messages": [{"role": "user", "content": "a secret question"}], "max_tokens": 20}
ONE, TWO, ADMIN = ({"authorization": f"Bearer {key}"} for key in ("one", "two", "admin"))


class TestContract(CollectorContract):
    @classmethod
    def collector(cls) -> RequestLog:
        return RequestLog()


async def machine(server: ScriptedServer, headers: dict[str, str], since: int = 0) -> dict[str, Any]:
    response = await server.send("GET", f"/page/machine?since={since}", headers=headers)
    assert response.status == 200
    found: dict[str, Any] = response.json()
    return found


def test_a_client_sees_its_own_requests_and_an_admin_all() -> None:
    server = ScriptedServer(plugin, api_keys=["one", "two"], admin_keys=ApiKeys(["admin"]))

    async def ask() -> None:
        async with server.running():
            await server.send("POST", "/v1/chat/completions", json=HI, headers=ONE)
            await server.send("POST", "/page/chat", json=HI, headers=TWO)
            await server.send("POST", "/page/chat", json={}, headers=TWO)
            await server.send("GET", "/v1/models")
            one, two, admin = [await machine(server, key) for key in (ONE, TWO, ADMIN)]
            assert [each["path"] for each in one["requests"]] == ["/v1/chat/completions"]
            assert [each["path"] for each in two["requests"]] == ["/page/chat", "/page/chat"]
            assert [(each["status"], each["path"]) for each in two["refused"]] == [(400, "/page/chat")]
            assert (one["refused"], one["sees_all"], admin["sees_all"]) == ([], False, True)
            assert len(admin["requests"]) == 3
            assert [(each["status"], each["code"]) for each in admin["refused"]] == [
                (400, None),
                (401, "invalid_api_key"),
            ]
            assert "secret" not in str(admin)
            refused = await server.send("GET", "/page/machine")
            assert refused.status == 401
            # An admin key is valid for no other route.
            assert (await server.send("GET", "/v1/models", headers=ADMIN)).status == 401

    asyncio.run(ask())


def test_a_request_that_runs_is_shown_to_its_client() -> None:
    server = ScriptedServer(plugin, api_keys=["one", "two"])
    server.engine.stalls_after = 1

    async def ask() -> None:
        async with server.running():
            running = asyncio.create_task(server.send("POST", "/page/chat", json=HI, headers=ONE))
            while not server.engine.running:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            one, two = [await machine(server, key) for key in (ONE, TWO)]
            [shown] = one["requests"]
            assert (shown["is_running"], shown["number"], shown["model"]) == (True, 0, "scripted")
            assert shown["generated_tokens"] == 5
            assert two["requests"] == []
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(ask())


def test_only_what_is_new_is_sent_again() -> None:
    server = ScriptedServer(plugin)

    async def ask() -> None:
        async with server.running():
            await server.send("POST", "/page/chat", json=HI)
            first = await machine(server, {})
            assert (len(first["requests"]), first["sees_all"]) == (1, True)
            assert (await machine(server, {}, first["next"]))["requests"] == []
            await server.send("POST", "/nowhere")
            [refused] = (await machine(server, {}, first["next"]))["refused"]
            assert (refused["method"], refused["path"], refused["status"]) == ("POST", "/nowhere", 404)

    asyncio.run(ask())


def a_log() -> RequestLog:
    return RequestLog(clock=lambda: 200.0, now=lambda: 1_000_000.0)


def test_times_of_a_request_are_its_phases() -> None:
    log = a_log()
    request = RecordedRequest()
    log.on_request_start(request)
    log.on_first_token(request)
    log.on_request_end(request)
    [logged] = log.requests(None)
    phases = (logged.waited, logged.queue, logged.prefill, logged.decode, logged.total)
    assert phases == (0.25, 0.125, 0.125, 2.0, 2.5)
    assert logged.received_at == 1_000_000.0 - 100.0
    assert log.first_token_quantiles(0.5, 0.99) == [0.5, 0.5]


def test_a_request_that_never_reached_the_engine_has_no_phases() -> None:
    log = a_log()
    request = RecordedRequest(submitted_at=None, first_token_at=None, finished_at=101.0, error="too long")
    log.on_request_end(request)
    [logged] = log.requests(None)
    assert (logged.waited, logged.queue, logged.prefill, logged.decode) == (1.0, None, None, None)


def test_buffers_and_texts_are_bounded() -> None:
    log = a_log()
    for i in range(MAX_REQUESTS + MAX_REFUSALS):
        request = RecordedRequest(str(i), path="/" + "x" * 9999, status=400, error="e" * 9999)
        log.on_request_end(request)
        log.on_http_request_end(request)
    requests, refusals = list(log.requests(None)), list(log.refusals(None))
    assert (len(requests), len(refusals)) == (MAX_REQUESTS, MAX_REFUSALS)
    assert {len(each.path) for each in requests} == {MAX_CHARS}
    assert {len(each.message) for each in refusals} == {MAX_CHARS}
    assert log.last_number == 2 * (MAX_REQUESTS + MAX_REFUSALS)


def test_no_record_of_a_request_that_has_ended_is_kept() -> None:
    log = RequestLog()
    tracker = RequestTracker("r", [log])
    assert [each.is_running for each in log.requests(None)] == [True]
    tracker.finish()
    assert [each.is_running for each in log.requests(None)] == [False]
    assert log._running == {}


def test_the_rate_is_that_of_the_latest_seconds() -> None:
    times = iter(range(100))
    log = RequestLog(now=lambda: float(next(times)))
    for _ in range(4):
        log.on_progress(RecordedRequest(), (), 8)
        log.on_interval(EngineStats(running=1, kv_blocks_used=3))
    assert log.tokens_per_second == 8.0
    assert [(each.tokens, each.running, each.used_blocks) for each in log.samples] == [(8, 1, 3)] * 4
    log.on_interval(None)
    assert log.stats is None
