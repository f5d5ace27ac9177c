"""What the HTTP server is made from: built by the command line, passed down."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

ContentFormat = Literal["auto", "string", "openai"]


class ServerConfig(Struct, frozen=True, kw_only=True):
    """The options of ``furiosa-llm serve`` that are about HTTP and chat."""

    served_model_name: str
    """The model's name in answers and in `/v1/models`."""
    host: str = "localhost"
    port: int = 8000
    """0 picks a free one."""
    api_keys: tuple[str, ...] = ()
    """With one or more, every route but `/health` wants one of them as its Bearer token."""
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
