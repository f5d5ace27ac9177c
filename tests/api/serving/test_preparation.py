"""Requests are prepared at the cost of their clients."""

from __future__ import annotations

import pytest
from support.api_fakes import a_server, app_of, complete, error_of

from fllm_api.config import RateLimits
from fllm_api.serving import request_serving


@pytest.mark.parametrize("small_body_bytes", [4096, 0])
def test_the_tokens_of_a_rejected_request_are_charged(
    small_body_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_serving, "SMALL_BODY_BYTES", small_body_bytes)
    server = a_server(["y" * 100], config={"limits": RateLimits(tokens_per_minute=600)})
    assert app_of(server)
    rejected = complete(server, prompt="x" * 550)
    assert error_of(rejected)["code"] == "context_length_exceeded"
    assert int(rejected.headers["x-ratelimit-remaining-tokens"]) < 100
    assert error_of(complete(server, prompt="x" * 550))["code"] == "context_length_exceeded"
    assert complete(server, max_tokens=1).status_code == 429


def test_a_request_is_charged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = a_server(["y"], config={"limits": RateLimits(tokens_per_minute=600)})
    first = complete(server, prompt=["x" * 50, "x" * 50], max_tokens=1)
    monkeypatch.setattr(request_serving, "SMALL_BODY_BYTES", 0)
    second = complete(server, prompt=["x" * 50, "x" * 50], max_tokens=1)
    assert [int(each.headers["x-ratelimit-remaining-tokens"]) // 10 for each in (first, second)] == [49, 39]
