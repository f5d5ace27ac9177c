"""How requests ended."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from fllm import RequestRecord
from fllm_metrics.families import LABELS, PREFIX

OUTCOMES = ("success", "aborted", "refused", "limited", "unavailable", "error")


class Outcomes:
    """A counter of each: all are there, at zero, from the start."""

    def __init__(self, registry: CollectorRegistry, model_name: str) -> None:
        name, text = f"{PREFIX}request_outcome", "Requests that ended, by how they did"
        family = Counter(name, text, (*LABELS, "outcome"), registry=registry)
        self._counters = {outcome: family.labels(model_name, outcome) for outcome in OUTCOMES}

    def finished(self, request: RequestRecord) -> None:
        """Count it."""
        self._counters[outcome(request)].inc()


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
