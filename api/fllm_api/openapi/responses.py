"""Descriptions of responses for the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema

from fllm_api.protocol.errors import ErrorResponse

_DESCRIPTIONS = {
    400: "The request is invalid",
    401: "A valid API key is needed",
    404: "The resource does not exist",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "The client has reached one of its limits; try again after `Retry-After` seconds",
    500: "The server failed to process the request",
    503: "The server is busy or the engine is unavailable; try again after `Retry-After` seconds",
    504: "The response was not complete in time",
}


def errors(*statuses: int, body: type[Any] = ErrorResponse) -> dict[int, ResponseSpec]:
    """Return the specification of the error envelope for each status."""
    return {
        status: ResponseSpec(body, description=_DESCRIPTIONS[status], generate_examples=False)
        for status in statuses
    }


def success(kind: type[Any]) -> dict[int, ResponseSpec]:
    """Return the specification of a successful response, if the handler's annotation does not specify it."""
    return {200: ResponseSpec(kind, description="The response", generate_examples=False)}


@dataclass
class StreamedOperation(Operation):
    """An operation whose response is a stream of events if the request has ``stream: true``."""

    def __post_init__(self) -> None:
        content = getattr((self.responses or {}).get("200"), "content", None)
        if content is not None:
            events = Schema(description="Lines of `data: ` and a chunk; the last is `data: [DONE]`")
            content["text/event-stream"] = OpenAPIMediaType(schema=events)
