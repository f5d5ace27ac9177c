"""The mutable state of one HTTP request: its id, its client, and what the middlewares add."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from typing import Any

from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Scope

from fllm.pipeline.request_tracker import RequestTracker
from fllm_api.lifecycle.deadline import Deadline
from fllm_api.limits.admission import AdmissionSlot
from fllm_api.limits.body_memory import BodyReservation
from fllm_api.models.early_stream import EarlyStream
from fllm_api.models.lease import ModelLease
from fllm_api.trusted_proxies import client_name

REQUEST_ID_HEADER = "x-request-id"
"""A request's own id is used if it is valid; every response carries the id."""
MAX_REQUEST_ID_LENGTH = 128
"""Characters of a client's id that are kept; the rest is cut off."""

_VISIBLE_ASCII = re.compile(r"[!-~]+")
"""Without spaces, so that an id cannot break a header, a log line, or a column of a log line."""
_STATE_KEY = "fllm_request_context"


class RequestContext:
    """The state of one request that the middlewares, the handler and the error handlers share.

    `tracker`, `deadline`, `slot` and `body` are unset until the middleware that owns them has run.
    Reading one too early raises `AttributeError`.
    """

    __slots__ = (
        *("body", "client", "deadline", "early_stream", "error", "error_code", "internal", "lease"),
        *("method", "owner", "priority", "request_id", "sees_all", "slot", "status", "tracker"),
    )

    tracker: RequestTracker
    """Times and counts for the collectors. Set by `RequestTrackingMiddleware`."""
    deadline: Deadline
    """The time limit of the request. Set by `DrainMiddleware`."""
    slot: AdmissionSlot
    """The request's share of the server's capacity. Set by `AdmissionMiddleware`."""
    body: BodyReservation
    """The memory that the request's body holds. Set by `BodyMemoryMiddleware`."""

    def __init__(self, request_id: str, client: str, method: str) -> None:
        self.request_id = request_id
        self.method = method
        """The method that the client sent; a HEAD request is handled as GET."""
        self.client = client
        """``ip:`` and the address, or ``owner:`` and a name or ``key:`` and a part of the key's hash."""
        self.owner = ""
        """Who owns what the request stores: an owner's name, or a name of its key that a restart keeps."""
        self.sees_all = False
        """Whether the client may see requests of others."""
        self.priority = 0
        """Added to the priority of the request: a larger number waits longer."""
        self.internal = False
        """Whether the request was made by a plugin, which has named its client."""
        self.status: int | None = None
        """Status code of the response, once it has started."""
        self.error: str | None = None
        """Error message, if the request failed."""
        self.error_code: str | None = None
        """Code of the error."""
        self.lease: ModelLease[Any] | None = None
        """Keeps the model of the request loaded, if the server loads models on demand."""
        self.early_stream: EarlyStream | None = None
        """Starts the response while the request waits for its model. Set by `ModelLeaseMiddleware`."""

    def charge(self, tokens: int) -> None:
        """Charge the client for tokens that have been read, if limits hold for the route."""
        if (slot := getattr(self, "slot", None)) is not None:
            slot.charge(tokens)

    def release_slot(self) -> None:
        """Free the capacity that the request occupies, if it has any."""
        if (slot := getattr(self, "slot", None)) is not None:
            slot.release()


def context_of(scope: Scope) -> RequestContext:
    """Return the context of a request. It is created on first use: no middleware runs for an unknown path."""
    state = scope["state"]
    context: RequestContext | None = state.get(_STATE_KEY)
    if context is None:
        context = RequestContext(
            choose_request_id(scope["headers"]), _address(scope), str(scope.get("method", ""))
        )
        state[_STATE_KEY] = context
    return context


async def record_response_start(message: Message, scope: Scope) -> None:
    """Add the request id to the response headers and record the status (a ``before_send`` hook)."""
    if message["type"] == "http.response.start":
        context = context_of(scope)
        context.status = message["status"]
        headers = MutableScopeHeaders.from_message(message)
        headers[REQUEST_ID_HEADER] = context.request_id
        handler = scope.get("route_handler")
        if handler is not None and (own := handler.opt.get("request_id_header")):
            headers[own] = context.request_id


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the client's request id if its header holds a valid one, else a new id."""
    name = REQUEST_ID_HEADER.encode()
    requested = next((value.decode("latin-1") for key, value in headers if key == name), "")
    return requested[:MAX_REQUEST_ID_LENGTH] if _VISIBLE_ASCII.fullmatch(requested) else uuid.uuid4().hex


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client_name(client[0]) if client else "ip:unknown"
