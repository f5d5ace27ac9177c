"""A line in the log for each request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fllm import Collector, RequestRecord
from fllm.logs import FIELDS

LONGEST_PATH = 256
"""A longer one is cut: it is the client's to choose."""

log = logging.getLogger("fllm.access")


class AccessLog(Collector):
    """Logs a line for each HTTP request: client, path, status, tokens and times."""

    def on_http_request_end(self, request: RequestRecord) -> None:
        """Write the line."""
        if log.isEnabledFor(logging.INFO):
            fields = fields_of(request)
            extra = {"request_id": request.request_id, FIELDS: fields}
            log.info("%s", in_words(fields), extra=extra)


def fields_of(request: RequestRecord) -> dict[str, Any]:
    """What is known, by its name in the log; seconds are rounded to tenths of milliseconds."""
    known = {
        "client": request.client,
        "method": request.method,
        "path": request.path[:LONGEST_PATH],
        "status": request.status,
        "seconds": _between(request.received_at, request.finished_at),
    }
    if request.submitted_at is not None:
        known |= _generation(request)
    if request.error is not None:
        known["error"] = request.error
    return known


def _generation(request: RequestRecord) -> dict[str, Any]:
    return {
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached_tokens,
        "generated_tokens": request.generated_tokens,
        "queue_seconds": round(request.queue_time, 4),
        "ttft_seconds": _between(request.received_at, request.first_token_at),
        "tokens_per_second": _rate(request),
        "stream": request.streamed,
        "finish_reasons": list(request.finish_reasons),
    }


def in_words(fields: Mapping[str, Any]) -> str:
    """The same, for people."""
    answered = fields["status"] or "unanswered"
    line = f"{fields['client']} {fields['method']} {fields['path']} {answered} in {fields['seconds']} s"
    if "prompt_tokens" in fields:
        line += (
            f"; prompt {fields['prompt_tokens']} ({fields['cached_tokens']} cached), "
            f"generated {fields['generated_tokens']}, queued {fields['queue_seconds']} s, "
            f"first token {_or_none(fields['ttft_seconds'], ' s')}, "
            f"{_or_none(fields['tokens_per_second'], ' tokens/s')}"
        )
    return f"{line}; {fields['error']}" if "error" in fields else line


def _between(began: float, ended: float | None) -> float | None:
    return None if ended is None else round(ended - began, 4)


def _rate(request: RequestRecord) -> float | None:
    """Of the tokens after the first; `None` where there is none."""
    first, last = request.first_token_at, request.finished_at
    if first is None or last is None or last <= first or request.generated_tokens < 2:
        return None
    return round((request.generated_tokens - 1) / (last - first), 1)


def _or_none(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value}{unit}"
