"""The framing of events that are kept."""

from __future__ import annotations

from fllm import ErrorInfo
from fllm_dialects.responses.protocol.errors import ErrorBody
from fllm_dialects.responses.stored.events import Event, framing_of_events


def test_an_error_that_ends_a_stream_is_an_event_with_the_next_number() -> None:
    framing = framing_of_events()
    assert [framing.encode(Event(b"a")), framing.encode(Event(b"b"))] == [b"a", b"b"]
    body = ErrorBody(ErrorInfo("it ends", "server_error"))
    data = '{"type":"error","sequence_number":2,"code":null,"message":"it ends","param":null}'
    assert framing.encode(body) == f"event: error\ndata: {data}\n\n".encode()
