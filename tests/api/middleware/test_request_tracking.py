"""What collectors receive of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from litestar import get
from litestar.params import FromQuery
from support.api_fakes import Recorder, a_server, a_server_with, ask, backend_of, chat, complete, events

from fllm import POLLED, RequestError
from fllm.interfaces import RequestRecord


@pytest.mark.parametrize("ask_for", [chat, complete])
@pytest.mark.parametrize("stream", [False, True])
def test_collectors_receive_the_progress_of_a_request(ask_for: Any, stream: bool) -> None:
    recorder = Recorder()
    ask_for(a_server(collectors=[recorder]), stream=stream, max_tokens=3)
    assert recorder.calls == ["on_request_start", "on_first_token", "on_progress 3", "on_request_end None"]
    [request] = recorder.requests
    assert request.prompt_tokens == (19 if ask_for is chat else 2)
    assert (request.generated_tokens, request.max_tokens) == (3, 3)


def test_several_sequences_are_one_request_for_collectors() -> None:
    recorder = Recorder()
    complete(a_server(collectors=[recorder]), prompt=["a", "b"], n=2)
    assert recorder.calls == ["on_request_start", "on_first_token", "on_progress 16", "on_request_end None"]


def test_an_invalid_request_is_reported_as_failed() -> None:
    recorder = Recorder()
    server = a_server(collectors=[recorder])
    chat(server, n="2")
    ask(server, "POST", "/v1/completions", content=b"x")
    chat(server, messages=[])
    starts, ends = recorder.calls[::2], recorder.calls[1::2]
    assert starts == ["on_request_start"] * 3
    assert all(end.startswith("on_request_end ") and end != "on_request_end None" for end in ends)


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_generation_is_reported_as_failed(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder()
    server = a_server(collectors=[recorder])
    backend_of(server).fails_after = 1
    chat(server, stream=stream)
    assert recorder.calls[0] == "on_request_start"
    assert recorder.calls[-1].startswith("on_request_end the server failed")


def test_collectors_receive_no_other_routes() -> None:
    recorder = Recorder()
    ask(a_server(collectors=[recorder]), "GET", "/v1/models")
    assert recorder.calls == []


class Faulty(Recorder):
    """Records every call, and raises each time."""

    def on_request_start(self, request: RequestRecord) -> None:
        super().on_request_start(request)
        raise ValueError("on_request_start")

    def on_first_token(self, request: RequestRecord) -> None:
        super().on_first_token(request)
        raise ValueError("on_first_token")

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        super().on_progress(request, gaps, tokens)
        raise ValueError("on_progress")

    def on_request_end(self, request: RequestRecord) -> None:
        super().on_request_end(request)
        raise ValueError("on_request_end")


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
    assert (
        recorder.calls == ["on_request_start", "on_first_token", "on_progress 4", "on_request_end None"] * 2
    )
    assert faulty.calls == recorder.calls
    logged = [record.getMessage() for record in caplog.records if record.name == "fllm.metrics"]
    methods = ("on_request_start", "on_first_token", "on_progress", "on_request_end")
    assert logged == [f"collector {__name__}.Faulty.{name} failed; this is logged once" for name in methods]


def test_only_errors_of_a_polled_route_are_reported() -> None:
    class Ends(Recorder):
        def on_http_request_end(self, request: RequestRecord) -> None:
            self.calls.append(f"{request.path} {request.status} {request.error_code}")

    @get("/polled", opt=POLLED, sync_to_thread=False)
    def polled(fails: FromQuery[bool] = False) -> str:
        if fails:
            raise RequestError("no", code="a_code")
        return "yes"

    recorder = Ends()
    server = a_server(plugins=a_server_with(polled).plugins, collectors=[recorder])
    for path in ("/polled", "/polled?fails=true", "/v1/models"):
        ask(server, "GET", path)
    assert recorder.calls == ["/polled 400 a_code", "/v1/models 200 None"]
