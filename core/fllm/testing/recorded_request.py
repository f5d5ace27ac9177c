"""A request record for tests of collectors, with default values for every field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class RecordedRequest:
    """A `RequestRecord` of a successful request. Tests pass only the fields that matter."""

    request_id: str = "r1"
    method: str = "POST"
    path: str = "/v1/chat/completions"
    client: str = "ip:127.0.0.1"
    trace_context: Mapping[str, str] = field(default_factory=dict)
    status: int | None = 200
    received_at: float = 100.0
    submitted_at: float | None = 100.25
    first_token_at: float | None = 100.5
    finished_at: float | None = 102.5
    queue_time: float = 0.125
    prompt_tokens: int = 7
    cached_tokens: int = 0
    generated_tokens: int = 11
    max_tokens: int | None = None
    n: int = 1
    streamed: bool = False
    model: str = ""
    adapter: str = ""
    replicas: tuple[str, ...] = ()
    finish_reasons: tuple[str, ...] = ("stop",)
    error: str | None = None
    error_code: str | None = None
