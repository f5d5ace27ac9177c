"""What the OpenAPI page says of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema

from fllm_api.protocol.errors import ErrorResponse

_MEANINGS = {
    400: "The request can't be served as it stands",
    401: "A valid API key is needed",
    404: "There is no such thing",
    413: "The body is too large",
    415: "The body is not JSON",
    429: "The client has all that it may have for now; `Retry-After` says for how long",
    500: "The server failed",
    503: "The server is busy, or the engine is not there; `Retry-After` says when to try again",
    504: "The answer was not there in time",
}


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """The envelope, for each status."""
    return {
        status: ResponseSpec(ErrorResponse, description=_MEANINGS[status], generate_examples=False)
        for status in statuses
    }


def success(kind: type[Any]) -> dict[int, ResponseSpec]:
    """The answer, where the handler's annotation does not say it."""
    return {200: ResponseSpec(kind, description="The answer", generate_examples=False)}


@dataclass
class StreamedOperation(Operation):
    """An operation that answers as a stream of events where the request asks for one."""

    def __post_init__(self) -> None:
        content = getattr((self.responses or {}).get("200"), "content", None)
        if content is not None:
            events = Schema(description="`data: ` and a chunk, until `data: [DONE]`")
            content["text/event-stream"] = OpenAPIMediaType(schema=events)
