"""What the HTTP server is made from: built by the command line, passed down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from fllm.config import Positive
from fllm_api.api_keys import Keys

ContentFormat = Literal["auto", "string", "openai"]


class ClientLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """``--limit KEY=VALUE``: what one client may have; ``None``: as much as there is."""

    concurrency: Positive | None = None
    """Requests in flight, waiting ones included."""
    tokens_per_minute: Positive | None = None
    """Tokens of prompts and answers together."""


class ServerConfig(Struct, frozen=True, kw_only=True):
    """The options of ``furiosa-llm serve`` that are about HTTP and chat."""

    served_model_name: str
    """The model's name in answers and in `/v1/models`."""
    host: str = "localhost"
    port: int = 8000
    """0 picks a free one."""
    keys: Keys = field(default_factory=Keys)
    """With one or more, every route but `/health` and `/ready` wants one of them as its Bearer token."""
    limits: ClientLimits = ClientLimits()
    max_queue: int = 2048
    """Sequences that may wait beyond those that the engine runs; more are refused at once."""
    request_timeout: float = 0.0
    """Seconds from arrival to the end of the answer; 0: as long as it takes."""
    read_timeout: float = 30.0
    """Seconds for a request's headers, and for its body."""
    write_timeout: float = 30.0
    """Seconds that an answer may wait for a client that does not read."""
    max_connections: int = 4096
    allowed_origins: tuple[str, ...] = ()
    """For CORS; credentials are allowed only where the origins are explicit."""
    response_role: str = "assistant"
    chat_template: Path | None = None
    chat_template_content_format: ContentFormat = "auto"
    default_chat_template_kwargs: Mapping[str, Any] = {}
    """Variables of the template, below a request's ``chat_template_kwargs``."""
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    enable_metrics: bool = False
    """Mounts `/metrics`."""
    enable_payload_logging: bool = False
    """Writes each request, with its body, to the standard output."""
    max_body_bytes: int = 64 * 1024 * 1024
    """A longer body is a 413."""
    trust_request_chat_template: bool = False
    """A request may bring its own ``chat_template``; it runs in a process of its own, under limits."""
