"""``--enable-payload-logging``: one line of JSON on the standard output for each request."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from fllm_api.request_id import request_id


class PayloadLog(ASGIMiddleware):
    """Writes what came and how it was answered, once the answer is complete."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Log one request."""
        began = _now()
        body = bytearray()
        status = 0

        async def hear() -> Any:
            message = await receive()
            if message["type"] == "http.request":
                body.extend(message.get("body", b""))
            return message

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await next_app(scope, hear, tell)
        finally:
            sys.stdout.write(_line(scope, began, bytes(body), status))
            sys.stdout.flush()


def _line(scope: Scope, began: str, body: bytes, status: int) -> str:
    query = scope["query_string"].decode("latin-1")
    url = scope["path"] + (f"?{query}" if query else "")
    client = scope.get("client")
    method = str(scope.get("method"))
    line = {
        "timestamp": _now(),
        "message": f"{method} {url} {status}",
        "request_id": request_id(scope),
        "req": {
            "timestamp": began,
            "method": method,
            "url": url,
            "remote_addr": client[0] if client else None,
            "payload": _payload(body),
        },
        "res": {"timestamp": _now(), "status_code": status},
    }
    return _encoded(line) + "\n"


def _encoded(line: dict[str, Any]) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except (OverflowError, RecursionError):  # numbers of more than 64 bits, and what Any lets nest
        return json.dumps(line)


def _payload(body: bytes) -> Any:
    """The body as JSON where it is JSON, else as text."""
    if not body:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
