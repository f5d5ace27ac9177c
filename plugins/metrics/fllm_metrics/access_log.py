"""Log a line for each HTTP request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fllm import Collector, RequestRecord
from fllm.logs import FIELDS

MAX_PATH_LENGTH = 256
"""Maximum number of characters of a path, because clients control its length."""

log = logging.getLogger("fllm.access")


class AccessLog(Collector):
    """Logs a line for each HTTP request: client, path, status, tokens and times."""

    def on_http_request_end(self, request: RequestRecord) -> None:
        """Log the line."""
        if log.isEnabledFor(logging.INFO):
            fields = log_fields(request)
            extra = {"request_id": request.request_id, FIELDS: fields}
            log.info("%s", format_line(fields), extra=extra)


def log_fields(request: RequestRecord) -> dict[str, Any]:
    """Return the known values by their names in the log; times in seconds, rounded to 0.1 ms."""
    known: dict[str, Any] = {
        "client": request.client,
        "method": request.method,
        "path": request.path[:MAX_PATH_LENGTH],
        "status": request.status,
        "seconds": _seconds_between(request.received_at, request.finished_at),
    }
    if request.submitted_at is not None:
        known |= _generation(request)
    if request.model:
        known["model"] = request.model
    if request.adapter:
        known["adapter"] = request.adapter
    if request.replicas:
        known["replicas"] = list(request.replicas)
    if request.error is not None:
        known["error"] = request.error
    return known


def _generation(request: RequestRecord) -> dict[str, Any]:
    return {
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached_tokens,
        "generated_tokens": request.generated_tokens,
        "queue_seconds": round(request.queue_time, 4),
        "ttft_seconds": _seconds_between(request.received_at, request.first_token_at),
        "tokens_per_second": _tokens_per_second(request),
        "stream": request.streamed,
        "finish_reasons": list(request.finish_reasons),
    }


def format_line(fields: Mapping[str, Any]) -> str:
    """Return the fields as a readable line."""
    status = fields["status"] or "unanswered"
    path = quote(fields["path"], errors="replace")  # a space in it would shift the fields
    line = f"{fields['client']} {fields['method']} {path} {status} in {fields['seconds']} s"
    if "prompt_tokens" in fields:
        line += (
            f"; prompt {fields['prompt_tokens']} ({fields['cached_tokens']} cached), "
            f"generated {fields['generated_tokens']}, queued {fields['queue_seconds']} s, "
            f"first token {_or_dash(fields['ttft_seconds'], ' s')}, "
            f"{_or_dash(fields['tokens_per_second'], ' tokens/s')}"
        )
    if "model" in fields:
        line += f", model {quote(fields['model'], errors='replace')}"
    if "adapter" in fields:
        line += f", adapter {quote(fields['adapter'], errors='replace')}"
    if "replicas" in fields:
        line += f", {', '.join(fields['replicas'])}"
    return f"{line}; {fields['error']}" if "error" in fields else line


def _seconds_between(start: float, end: float | None) -> float | None:
    return None if end is None else round(end - start, 4)


def _tokens_per_second(request: RequestRecord) -> float | None:
    """Return the rate of the tokens after the first; None without such tokens."""
    first, last = request.first_token_at, request.finished_at
    if first is None or last is None or last <= first or request.generated_tokens < 2:
        return None
    return round((request.generated_tokens - 1) / (last - first), 1)


def _or_dash(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value}{unit}"
