"""What the listener uses of uvicorn beyond its documented interface."""

from __future__ import annotations

import asyncio
import inspect
import re
from importlib.metadata import version
from typing import Any

import pytest
import uvicorn
from uvicorn import _types
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

METHODS = {
    HttpToolsProtocol: {
        "_start_asgi_task": ["self", "cycle", "app"],
        "_unset_keepalive_if_required": ["self"],
        "connection_made": ["self", "transport"],
        "connection_lost": ["self", "exc"],
        "data_received": ["self", "data"],
        "on_message_begin": ["self"],
        "on_url": ["self", "url"],
        "on_header": ["self", "name", "value"],
        "on_headers_complete": ["self"],
        "on_body": ["self", "body"],
        "on_message_complete": ["self"],
        "on_response_complete": ["self"],
        "pause_writing": ["self"],
        "resume_writing": ["self"],
    },
    FlowControl: {"resume_reading": ["self"]},
    uvicorn.Server: {
        "startup": ["self", "sockets"],
        "shutdown": ["self", "sockets"],
        "capture_signals": ["self"],
        "serve": ["self", "sockets"],
    },
}
"""Methods that the listener overrides or calls, with their parameters."""

ATTRIBUTES = {
    HttpToolsProtocol: (
        *("loop", "parser", "transport", "flow", "client", "server_state"),
        *("headers", "pipeline", "cycle", "expect_100_continue", "url"),
    ),
    RequestResponseCycle: (
        *("scope", "message_event", "keep_alive"),
        *("disconnected", "response_started", "response_complete"),
    ),
    FlowControl: ("read_paused",),
    ServerState: ("connections", "tasks", "default_headers"),
    uvicorn.Server: ("server_state", "should_exit", "lifespan", "servers"),
}
"""Instance attributes that the listener reads or sets."""

HINT = "uvicorn {} changed what fllm_api.listener relies on; adapt it, or lower the bound in pyproject.toml"


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_uvicorn_has_the_methods_that_the_listener_overrides_or_calls(kind: type[Any]) -> None:
    found = {
        name: list(inspect.signature(getattr(kind, name)).parameters) if hasattr(kind, name) else None
        for name in METHODS[kind]
    }
    assert found == METHODS[kind], HINT.format(version("uvicorn"))


@pytest.mark.parametrize("kind", ATTRIBUTES, ids=lambda kind: kind.__name__)
def test_uvicorn_has_the_attributes_that_the_listener_uses(kind: type[Any]) -> None:
    source = inspect.getsource(kind)
    missing = [name for name in ATTRIBUTES[kind] if not re.search(rf"self\.{name}\b", source)]
    assert not missing, HINT.format(version("uvicorn"))


def test_uvicorn_has_the_types_that_the_listener_uses() -> None:
    assert hasattr(_types, "ASGI3Application"), HINT.format(version("uvicorn"))
    assert issubclass(HttpToolsProtocol, asyncio.Protocol), HINT.format(version("uvicorn"))
