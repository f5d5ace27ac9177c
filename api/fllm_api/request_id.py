"""``x-request-id``: the client's own, or a new one, on every response."""

from __future__ import annotations

import re
import uuid

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.types import Message, Scope

HEADER = "x-request-id"
MAX_LENGTH = 128
"""A longer id of a client is cut."""

_VISIBLE = re.compile(r"[!-~]+")
"""ASCII without spaces: what can't break a header, a line of the log, or a column of it."""


async def begin_response(message: Message, scope: Scope) -> None:
    """A hook of the application, called before each message is sent: the id leaves, the status is noted."""
    if message["type"] == "http.response.start":
        MutableScopeHeaders.from_message(message)[HEADER] = request_id(scope)
        scope["state"]["status"] = message["status"]


def request_id(scope: Scope) -> str:
    """The id of this request."""
    state = scope["state"]
    if "request_id" not in state:
        state["request_id"] = acceptable(Headers.from_scope(scope).get(HEADER, "")) or uuid.uuid4().hex
    return str(state["request_id"])


def acceptable(given: str) -> str:
    """A client's id as it is used; empty: a new one has to be made."""
    return given[:MAX_LENGTH] if _VISIBLE.fullmatch(given) else ""
