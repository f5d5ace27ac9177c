"""``x-request-id``: the client's own, or a new one, on every response."""

from __future__ import annotations

import uuid

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.types import Message, Scope

HEADER = "x-request-id"
MAX_LENGTH = 128
"""A longer id of a client is cut."""


async def add_request_id(message: Message, scope: Scope) -> None:
    """A hook of the application, called before each message is sent."""
    if message["type"] == "http.response.start":
        MutableScopeHeaders.from_message(message)[HEADER] = request_id(scope)


def request_id(scope: Scope) -> str:
    """The id of this request."""
    given = Headers.from_scope(scope).get(HEADER, "")[:MAX_LENGTH]
    state = scope["state"]
    if "request_id" not in state:
        state["request_id"] = given or uuid.uuid4().hex
    return str(state["request_id"])
