"""Descriptions of the routes for the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIFormat, OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from msgspec import Struct

from fllm import ErrorInfo

CONTENT_TYPE = "application/octet-stream"
"""Of the content of files: a browser saves it, and never shows it."""
_DESCRIPTIONS = {
    400: "The request is invalid",
    403: "A web page sends no key",
    404: "The file or the batch does not exist, or belongs to another client",
    409: "The present state does not allow this",
    413: "The file is too large, or has no room",
    429: "The client has reached one of its limits",
    503: "The server is busy, or can't read or write what it stores",
    507: "The disk of the server is full",
}


class ErrorEnvelope(Struct, frozen=True):
    """The body of an error."""

    error: ErrorInfo


def errors(*statuses: int) -> dict[int, ResponseSpec]:
    """Return the specification of the error envelope for each status."""
    return {
        status: ResponseSpec(ErrorEnvelope, description=_DESCRIPTIONS[status], generate_examples=False)
        for status in statuses
    }


def success(kind: type[Any]) -> dict[int, ResponseSpec]:
    """Return the specification of the response."""
    return {200: ResponseSpec(kind, description="The response", generate_examples=False)}


@dataclass
class UploadOperation(Operation):
    """An operation whose body is a form with a file."""

    def __post_init__(self) -> None:
        """Describe the form."""
        text = Schema(type=OpenAPIType.STRING)
        form = Schema(
            type=OpenAPIType.OBJECT,
            required=["file", "purpose"],
            properties={
                "file": Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY),
                "purpose": Schema(type=OpenAPIType.STRING, enum=["batch"]),
                "expires_after[anchor]": text,
                "expires_after[seconds]": Schema(type=OpenAPIType.INTEGER),
            },
        )
        self.request_body = RequestBody(
            content={"multipart/form-data": OpenAPIMediaType(schema=form)}, required=True
        )


@dataclass
class DownloadOperation(Operation):
    """An operation whose response is the content of a file."""

    def __post_init__(self) -> None:
        """Describe the content."""
        content = getattr((self.responses or {}).get("200"), "content", None)
        if content is not None:
            content.clear()
            content[CONTENT_TYPE] = OpenAPIMediaType(
                schema=Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
            )
