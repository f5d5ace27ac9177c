"""The error response for data that never became a request, in the same envelope as every other error."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import responses as REASON_PHRASES

import msgspec

from fllm_api.errors import error_info
from fllm_api.protocol.errors import ErrorResponse
from fllm_api.request_context import REQUEST_ID_HEADER

Headers = Sequence[tuple[bytes, bytes]]


class RequestRejected(Exception):
    """Rejects a request with this status. The connection is closed; further data is not read."""

    def __init__(self, status: int, message: str, headers: Headers = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers

    def encode(self, request_id: str, default_headers: Headers) -> bytes:
        """Return the complete response as bytes."""
        body = msgspec.json.encode(ErrorResponse(error_info(self.status, self.message)))
        own = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (REQUEST_ID_HEADER.encode(), request_id.encode("latin-1")),
            (b"connection", b"close"),
        )
        lines = [f"HTTP/1.1 {self.status} {REASON_PHRASES[self.status]}".encode()]
        lines += [name + b": " + value for name, value in (*default_headers, *self.headers, *own)]
        return b"\r\n".join([*lines, b"", body])
