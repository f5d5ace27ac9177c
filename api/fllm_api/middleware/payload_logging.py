"""``--enable-payload-logging``: middleware that writes one line of JSON per request to stdout."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from fllm.concurrency.turn_executor import run_at_once
from fllm.logs import escaped_json
from fllm_api.limits.body_memory import MAX_JSON_VALUES, count_body
from fllm_api.request_context import context_of

MAX_RESPONSE_BYTES = 1024 * 1024
"""Bytes of a response that are kept and logged."""


class PayloadLoggingMiddleware(ASGIMiddleware):
    """Writes the bodies of a request and of its response, once the response is complete.

    The body of a request is left out if its handler streams it, because it may be larger than the memory.
    Health checks and other requests that are polled are not written.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Log one request."""
        if scope["route_handler"].opt.get("not_tracked"):
            return await next_app(scope, receive, send)
        received_at = _now()
        body, response = bytearray(), bytearray()
        status = 0
        streamed = scope["route_handler"].opt.get("streams_body")

        async def receive_logged() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
            return message

        async def send_logged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and len(response) <= MAX_RESPONSE_BYTES:
                response.extend(message["body"])
            await send(message)

        try:
            await next_app(scope, receive if streamed else receive_logged, send_logged)
        finally:
            sys.stdout.write(_line(scope, received_at, bytes(body), status, bytes(response)))
            sys.stdout.flush()


def _line(scope: Scope, received_at: str, body: bytes, status: int, response: bytes) -> str:
    query = scope["query_string"].decode("latin-1")
    url = quote(scope["path"]) + (f"?{query}" if query else "")
    client = scope.get("client")
    context = context_of(scope)
    line = {
        "timestamp": _now(),
        "message": f"{context.method} {url} {status}",
        "request_id": context.request_id,
        "req": {
            "timestamp": received_at,
            "method": context.method,
            "url": url,
            "remote_addr": client[0] if client else None,
            "payload": _payload(body),
        },
        "res": {"timestamp": _now(), "status_code": status, "payload": _response_payload(response)},
    }
    return _to_json(line) + "\n"


def _to_json(line: dict[str, Any]) -> str:
    try:
        return escaped_json(msgspec.json.encode(line).decode())
    except (OverflowError, RecursionError):  # integers of more than 64 bits, or a deeply nested payload
        return json.dumps(line)


def _response_payload(response: bytes) -> Any:
    """Return the body of a response as `_payload` does; a stream is text. A long one is cut."""
    if len(response) <= MAX_RESPONSE_BYTES:
        return _payload(response)
    return response[:MAX_RESPONSE_BYTES].decode(errors="replace") + "..."


def _payload(body: bytes) -> Any:
    """Return the body decoded from JSON, or as text if it is not JSON or has too many values."""
    if not body:
        return None
    try:
        if len(body) > MAX_JSON_VALUES and run_at_once(count_body(body)).values > MAX_JSON_VALUES:
            return body.decode(errors="replace")
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
