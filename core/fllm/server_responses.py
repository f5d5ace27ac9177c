"""Read what servers of OpenAI's API send: the events of a stream, the message of an error."""

from __future__ import annotations

from typing import Any

DONE = b"[DONE]"
"""The data of the last event of a stream."""


class EventData:
    """Finds the data of server-sent events in a stream that is divided anywhere.

    An event has one line of data, as OpenAI's have. Lines of other kinds, such as comments, are left out.
    """

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of the events that are complete now, without spaces around it."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]


def error_message(body: Any, length: int = 200) -> str:
    """Return the message in the decoded body of an error, whichever shape a server uses, as one line."""
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), str(body))
    return " ".join(str(body).split())[:length]
