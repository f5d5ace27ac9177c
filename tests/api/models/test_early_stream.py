"""A response that starts before its handler runs."""

from __future__ import annotations

import asyncio
from typing import Any

from fllm_api.models.early_stream import EarlyStream


def sent(*messages: dict[str, Any], comments: int = 1) -> list[Any]:
    """Return what is sent for comments and then the messages of a handler."""
    written: list[Any] = []

    async def go() -> None:
        async def send(message: Any) -> None:
            written.append(message)

        stream = EarlyStream(send)
        for _ in range(comments):
            await stream.write_comment("one\ntwo")
        for message in messages:
            await stream.send(message)  # type: ignore[arg-type]

    asyncio.run(go())
    return written


def start(kind: bytes, status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": [(b"Content-Type", kind)]}


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_without_a_comment_nothing_changes() -> None:
    messages = [start(b"application/json", 400), part(b"{}", more=False)]
    assert sent(*messages, comments=0) == messages


def test_the_headers_are_sent_once() -> None:
    first, *rest = sent(start(b"text/event-stream"), part(b"data: 1\n\n", more=False), comments=2)
    assert (first["type"], first["status"]) == ("http.response.start", 200)
    assert rest == [
        part(b": one two\n\n", more=True),
        part(b": one two\n\n", more=True),
        part(b"data: 1\n\n", more=False),
    ]


def test_a_response_that_is_no_stream_becomes_one_event() -> None:
    _, _, *rest = sent(start(b"application/json", 400), part(b'{"a":', more=True), part(b"1}", more=False))
    assert b"".join(each["body"] for each in rest) == b'data: {"a":1}\n\ndata: [DONE]\n\n'
    assert [each["more_body"] for each in rest] == [True, False]


def test_headers_that_are_added_to_one_stream_are_not_in_the_next() -> None:
    sent()[0]["headers"].append((b"x-request-id", b"1"))
    assert b"x-request-id" not in dict(sent()[0]["headers"])
