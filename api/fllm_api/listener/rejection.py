"""What is answered where no request came to be: in the envelope, as everything else."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import responses as PHRASES

import msgspec

from fllm_api.errors import error_body
from fllm_api.protocol.errors import ErrorResponse
from fllm_api.request_id import HEADER

Fields = Sequence[tuple[bytes, bytes]]


class Refusal(Exception):
    """The connection is closed with this status; what it still brings is not read."""

    def __init__(self, status: int, message: str, fields: Fields = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.fields = fields

    def encode(self, request_id: str, fields: Fields) -> bytes:
        """The whole answer, as it goes over the wire."""
        body = msgspec.json.encode(ErrorResponse(error_body(self.status, self.message)))
        own = (
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (HEADER.encode(), request_id.encode("latin-1")),
            (b"connection", b"close"),
        )
        lines = [f"HTTP/1.1 {self.status} {PHRASES[self.status]}".encode()]
        lines += [name + b": " + value for name, value in (*fields, *self.fields, *own)]
        return b"\r\n".join([*lines, b"", body])
