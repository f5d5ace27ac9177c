"""Classify how requests ended."""

from __future__ import annotations

from fllm import RequestRecord

OUTCOMES = ("success", "aborted", "refused", "limited", "unavailable", "error")


def outcome(request: RequestRecord) -> str:
    """Return one of `OUTCOMES`, by the party that can fix the problem.

    - ``aborted``: the client disconnected or did not read, or the request timed out.
    - ``refused``: the request was invalid.
    - ``limited``: the client exceeded a limit.
    - ``unavailable``: the engine or the server was not available.
    - ``error``: any other failure, also after the response had started.
    """
    if request.error is None:
        return "success"
    match request.status:
        case 429:
            return "limited"
        case 499:  # the client disconnected before its request was accepted
            return "aborted"
        case 503:
            return "unavailable"
        case int(status) if 400 <= status < 500:
            return "refused"
        case int(status) if status >= 500:
            return "error"
        case _:
            return "error" if "error" in request.finish_reasons else "aborted"
