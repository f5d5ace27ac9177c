"""Description of a route that can stream, for the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, Operation, Schema


@dataclass
class EventStreamOperation(Operation):
    """An operation whose response is a stream of named events if the request has ``stream: true``."""

    def __post_init__(self) -> None:
        """Add the stream to the content of the response."""
        content = getattr((self.responses or {}).get("200"), "content", None)
        if content is not None:
            events = Schema(description="Lines of `event: ` and its name, and of `data: ` and its JSON")
            content["text/event-stream"] = OpenAPIMediaType(schema=events)
