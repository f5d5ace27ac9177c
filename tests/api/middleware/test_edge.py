"""API keys, CORS, request ids, payload logging, and what collectors receive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from support.api_fakes import Recorder, a_server, ask, backend_of, chat, complete, error_of, events

from fllm.interfaces import RequestRecord
from fllm_api.api_keys import ApiKeys

KEYS = {"keys": ApiKeys(("first", "sécond"))}


@pytest.mark.parametrize("path", ["/v1/models", "/version", "/schema", "/schema/openapi.json", "/metrics"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "first", "Basic first", "Bearer first2"])
def test_every_route_needs_a_key(path: str, header: str | None) -> None:
    server = a_server(config={**KEYS, "enable_metrics": True})
    response = ask(server, "GET", path, headers={"authorization": header} if header else {})
    error = error_of(response)
    assert (response.status_code, error["type"], error["code"]) == (
        401,
        "authentication_error",
        "invalid_api_key",
    )
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_key_is_checked_before_the_body_is_read() -> None:
    response = ask(a_server(config=KEYS), "POST", "/v1/chat/completions", content=b"{")
    assert response.status_code == 401


@pytest.mark.parametrize("header", ["Bearer first", "bearer first", "Bearer sécond"])
def test_each_key_is_accepted(header: str) -> None:
    headers = {"authorization": header.encode()}
    assert ask(a_server(config=KEYS), "GET", "/v1/models", headers=headers).status_code == 200


def test_health_needs_no_key() -> None:
    assert ask(a_server(config=KEYS), "GET", "/health").status_code == 200


def test_an_explicit_origin_may_use_credentials() -> None:
    server = a_server(config={"allowed_origins": ("https://a.example",)})
    response = ask(server, "GET", "/v1/models", headers={"origin": "https://a.example"})
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    other = ask(server, "GET", "/v1/models", headers={"origin": "https://b.example"})
    assert "access-control-allow-origin" not in other.headers


def test_any_origin_may_not_use_credentials() -> None:
    server = a_server(config={"allowed_origins": ("*",)})
    headers = {"origin": "https://a.example", "cookie": "a=b"}
    response = ask(server, "GET", "/v1/models", headers=headers)
    assert "access-control-allow-origin" in response.headers
    assert response.headers.get("access-control-allow-credentials", "false") == "false"


def test_a_preflight_needs_no_key() -> None:
    server = a_server(config={**KEYS, "allowed_origins": ("https://a.example",)})
    headers = {
        "origin": "https://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    response = ask(server, "OPTIONS", "/v1/chat/completions", headers=headers)
    assert response.status_code == 204
    assert "authorization" in response.headers["access-control-allow-headers"].lower()


def test_without_origins_there_is_no_cors() -> None:
    response = ask(a_server(), "GET", "/v1/models", headers={"origin": "https://a.example"})
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/schema/openapi.json"])
def test_every_response_has_a_request_id(path: str) -> None:
    server = a_server()
    first, second = (ask(server, "GET", path).headers["x-request-id"] for _ in range(2))
    assert first != second
    given = ask(server, "GET", path, headers={"x-request-id": "mine"})
    assert given.headers["x-request-id"] == "mine"


def test_streams_and_errors_have_a_request_id_too() -> None:
    server = a_server(config=KEYS)
    assert chat(server).headers["x-request-id"]
    assert chat(a_server(), stream=True).headers["x-request-id"]


@pytest.mark.parametrize("ask_for", [chat, complete])
@pytest.mark.parametrize("stream", [False, True])
def test_collectors_receive_the_progress_of_a_request(ask_for: Any, stream: bool) -> None:
    recorder = Recorder()
    ask_for(a_server(collectors=[recorder]), stream=stream, max_tokens=3)
    assert recorder.heard == ["received", "started", "progressed 3", "finished None"]
    [request] = recorder.requests
    assert request.prompt_tokens == (19 if ask_for is chat else 2)
    assert (request.generated_tokens, request.max_tokens) == (3, 3)


def test_several_sequences_are_one_request_for_collectors() -> None:
    recorder = Recorder()
    complete(a_server(collectors=[recorder]), prompt=["a", "b"], n=2)
    assert recorder.heard == ["received", "started", "progressed 16", "finished None"]


def test_an_invalid_request_is_reported_as_failed() -> None:
    recorder = Recorder()
    server = a_server(collectors=[recorder])
    chat(server, n="2")
    ask(server, "POST", "/v1/completions", content=b"x")
    chat(server, messages=[])
    starts, ends = recorder.heard[::2], recorder.heard[1::2]
    assert starts == ["received"] * 3
    assert all(end.startswith("finished ") and end != "finished None" for end in ends)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_generation_is_reported_as_failed(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    server = a_server(collectors=[recorder])
    backend_of(server).fails_after = 1
    chat(server, stream=stream)
    assert recorder.heard[0] == "received"
    assert recorder.heard[-1].startswith("finished the server failed")


def test_collectors_receive_no_other_routes() -> None:
    recorder = Recorder()
    ask(a_server(collectors=[recorder]), "GET", "/v1/models")
    assert recorder.heard == []


class Faulty(Recorder):
    """Records every call, and raises each time."""

    def received(self, request: RequestRecord) -> None:
        super().received(request)
        raise ValueError("received")

    def started(self, request: RequestRecord) -> None:
        super().started(request)
        raise ValueError("started")

    def progressed(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        super().progressed(request, gaps, tokens)
        raise ValueError("progressed")

    def finished(self, request: RequestRecord) -> None:
        super().finished(request)
        raise ValueError("finished")


@pytest.mark.parametrize("stream", [False, True])
def test_a_collector_that_raises_harms_no_request_and_is_logged_once(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    faulty, recorder = Faulty(), Recorder()
    server = a_server(collectors=[faulty, recorder])
    for _ in range(2):
        response = complete(server, stream=stream)
        assert response.status_code == 200
        if stream:
            assert events(response)[-1]["choices"][0]["finish_reason"] == "stop"
    assert recorder.heard == ["received", "started", "progressed 4", "finished None"] * 2
    assert faulty.heard == recorder.heard
    logged = [record.getMessage() for record in caplog.records]
    methods = ("received", "started", "progressed", "finished")
    assert logged == [f"collector {__name__}.Faulty.{name} failed; this is logged once" for name in methods]


def test_payloads_are_logged_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    server = a_server(config={"enable_payload_logging": True})
    events(complete(server, prompt="é", stream=True))
    ask(server, "POST", "/v1/completions?a=b", content=b"\xff", headers={"content-type": "application/json"})
    ask(server, "GET", "/health")
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert set(first) == {"timestamp", "message", "request_id", "req", "res"}
    assert first["req"].pop("timestamp")
    assert first["res"].pop("timestamp")
    assert first["req"] == {
        "method": "POST",
        "url": "/v1/completions",
        "remote_addr": "127.0.0.1",
        "payload": {"model": "m", "prompt": "é", "stream": True},
    }
    assert first["res"] == {"status_code": 200}
    assert first["message"] == "POST /v1/completions 200"
    assert (second["req"]["url"], second["req"]["payload"]) == ("/v1/completions?a=b", "�")
    assert second["res"]["status_code"] == 400
    assert third["req"]["payload"] is None


def test_payloads_are_not_logged_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    complete(a_server())
    assert capsys.readouterr().out == ""
