"""How requests ended."""

from __future__ import annotations

from fllm import RequestRecord

OUTCOMES = ("success", "aborted", "refused", "limited", "unavailable", "error")


def outcome(request: RequestRecord) -> str:
    """One of `OUTCOMES`: who is to mend what went wrong, if anything did.

    ``aborted``: the client left, or did not read, or its time was over; ``refused``: for what it says;
    ``limited``: for how many there are; ``unavailable``: the engine or the server was not there;
    ``error``: any other failure, of an answer that had begun too.
    """
    if request.error is None:
        return "success"
    match request.status:
        case 429:
            return "limited"
        case 503:
            return "unavailable"
        case int(status) if 400 <= status < 500:
            return "refused"
        case int(status) if status >= 500:
            return "error"
        case _:
            return "error" if "error" in request.finish_reasons else "aborted"
