"""The log of requests with their bodies."""

from __future__ import annotations

import json

import pytest
from support.api_fakes import a_server, ask, complete, events

from fllm_api.middleware import payload_logging


def test_payloads_are_logged_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    server = a_server(config={"enable_payload_logging": True})
    events(complete(server, prompt="é", stream=True))
    ask(server, "POST", "/v1/completions?a=b", content=b"\xff", headers={"content-type": "application/json"})
    ask(server, "GET", "/health")
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert set(first) == {"timestamp", "message", "request_id", "req", "res"}
    assert first["req"].pop("timestamp")
    assert first["res"].pop("timestamp")
    assert first["req"] == {
        "method": "POST",
        "url": "/v1/completions",
        "remote_addr": "127.0.0.1",
        "payload": {"model": "m", "prompt": "é", "stream": True},
    }
    streamed = first["res"].pop("payload")
    assert streamed.startswith("data: {")
    assert streamed.endswith("\n\ndata: [DONE]\n\n")
    assert first["res"] == {"status_code": 200}
    assert first["message"] == "POST /v1/completions 200"
    assert (second["req"]["url"], second["req"]["payload"]) == ("/v1/completions?a=b", "�")
    assert second["res"]["status_code"] == 400
    assert second["res"]["payload"]["error"]["type"] == "invalid_request_error"


def test_a_request_without_a_body_has_no_payload(capsys: pytest.CaptureFixture[str]) -> None:
    ask(a_server(config={"enable_payload_logging": True}), "GET", "/v1/models")
    assert json.loads(capsys.readouterr().out)["req"]["payload"] is None


def test_a_response_is_logged_as_it_is_sent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = a_server(config={"enable_payload_logging": True})
    sent = complete(server).json()
    monkeypatch.setattr(payload_logging, "MAX_RESPONSE_BYTES", 10)
    complete(server)
    whole, cut = (json.loads(line)["res"]["payload"] for line in capsys.readouterr().out.splitlines())
    assert whole == sent
    assert (len(cut), cut[-3:]) == (13, "...")


def test_no_request_forges_a_line_or_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "\u2028\u2029\x85\x9b2J\x7f\u202e\n"
    server = a_server(config={"enable_payload_logging": True})
    complete(server, prompt=prompt)
    ask(server, "GET", "/v1/models/a%20200%20b%0A?%0A")
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert all(line.isprintable() for line in lines)
    first, second = map(json.loads, lines)
    assert first["req"]["payload"]["prompt"] == prompt
    assert second["message"] == "GET /v1/models/a%20200%20b%0A?%0A 404"


def test_a_body_of_too_many_values_is_logged_as_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_logging, "MAX_JSON_VALUES", 5)
    server = a_server(config={"enable_payload_logging": True})
    complete(server, prompt=[1, 2, 3])
    complete(server, prompt=[1, 2, 3, 4, 5])
    first, second = (json.loads(line)["req"]["payload"] for line in capsys.readouterr().out.splitlines())
    assert first == {"model": "m", "prompt": [1, 2, 3]}
    assert json.loads(second) == {"model": "m", "prompt": [1, 2, 3, 4, 5]}


def test_payloads_are_not_logged_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    complete(a_server())
    assert capsys.readouterr().out == ""
