"""The contract of collectors: a counting collector passes, and each violation is detected."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from fllm import Collector, EngineStats, MetricsPage, RequestRecord
from fllm.testing import CollectorContract, run_contract


class Counting(Collector):
    """Counts requests and tokens, and can be scraped."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0

    def on_request_start(self, request: RequestRecord) -> None:
        self.requests += 1

    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        self.tokens += tokens

    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        page = f"# TYPE tokens counter\ntokens_total {self.tokens}\n"
        if "openmetrics" in accept:
            return MetricsPage("application/openmetrics-text; version=1.0.0", f"{page}# EOF\n".encode())
        return MetricsPage("text/plain; version=0.0.4", page.encode())


class TestCounting(CollectorContract):
    @classmethod
    def collector(cls) -> Collector:
        return Counting()


class NeedsFirstToken(Counting):
    """Requires that each request has a first token."""

    def on_request_end(self, request: RequestRecord) -> None:
        assert request.first_token_at is not None, "no first token"


class DividesByGaps(Counting):
    def on_progress(self, request: RequestRecord, gaps: Sequence[float], tokens: int) -> None:
        self.tokens = tokens // len(gaps)


class ClearsGaps(Counting):
    def on_progress(self, request: RequestRecord, gaps: Any, tokens: int) -> None:
        gaps.clear()


class ModifiesRequest(Counting):
    def on_request_start(self, request: Any) -> None:
        request.request_id = "mine"


class Blocking(Counting):
    def on_request_end(self, request: RequestRecord) -> None:
        threading.Event().wait(2)


class InvalidPage(Counting):
    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        return MetricsPage("text/plain", b"tokens = 3\n")


class DuplicateFamily(Counting):
    def expose(self, status: EngineStats | None, accept: str) -> MetricsPage:
        return MetricsPage("text/plain", b"# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na 2\n")


class NeedsStatus(Counting):
    def on_interval(self, stats: Any) -> None:
        self.tokens = stats.running


REJECTED = "a request that is rejected or aborted before its first token"


@pytest.mark.parametrize(
    ("kind", "test", "message"),
    [
        (NeedsFirstToken, REJECTED, "on_request_end raised AssertionError"),
        (DividesByGaps, "many requests at once", "on_progress raised ZeroDivisionError"),
        (ClearsGaps, "a long request that progresses", "modifies the gaps"),
        (ModifiesRequest, "a request that succeeds", "on_request_start modifies the request"),
        (Blocking, "a request that succeeds", "the collector blocks: not done after 0.3 s"),
        (InvalidPage, "exposed metrics can be parsed", "can't parse the metrics page"),
        (DuplicateFamily, "exposed metrics can be parsed", "has a family twice"),
        (NeedsStatus, "the state of the engine is reported", "running"),
    ],
)
def test_a_violation_is_detected(kind: type[Counting], test: str, message: str) -> None:
    attributes = {"collector": classmethod(lambda cls: kind()), "timeout": 0.3 if kind is Blocking else 30.0}
    case = type("Case", (CollectorContract,), attributes)
    found = {result.test: str(result.error) for result in run_contract(case) if result.error}
    assert message in found[test]
