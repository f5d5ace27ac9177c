"""Outputs that arrive together are sent in one write."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from support.api_fakes import COMPLETION_SCOPE, FakeBackend, a_server, app_of, byte_tokenizer

from fllm_api.app_state import AppState


def writes(server: AppState, **body: Any) -> list[bytes]:
    """Return the writes of a streamed completion."""
    body = {"model": "m", "prompt": "Hi", "stream": True, **body}
    written: list[bytes] = []
    requests = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        if not requests:
            await asyncio.Event().wait()
        return requests.pop()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            written.append(message["body"])

    asyncio.run(app_of(server)({**COMPLETION_SCOPE}, receive, send))  # type: ignore[arg-type]
    return written


def texts(write: bytes) -> list[str]:
    """Return the texts of a write's events."""
    events = [json.loads(event[6:]) for event in write.split(b"\n\n") if event.startswith(b"data: {")]
    return [choice["text"] for event in events for choice in event["choices"]]


def test_the_tokens_of_one_step_are_one_event() -> None:
    words = ("a", "b", "c", "d")
    ids = byte_tokenizer(words).encode("abcd", add_special_tokens=False)
    server = a_server(words, backend=FakeBackend([ids[:3], ids[3:]]))
    assert [texts(write) for write in writes(server)] == [["abc"], ["d"], []]


def test_choices_that_progress_together_share_a_write() -> None:
    written = writes(a_server(("a", "b")), n=3)
    assert [texts(write) for write in written] == [["a"] * 3, ["b"] * 3, [""] * 3, []]
