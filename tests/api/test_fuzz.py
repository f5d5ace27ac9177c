"""Requests that fit the published schema, or do not, never cause a 5xx or an undocumented response."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, settings
from support.api_fakes import FakeReasoningParser, FakeToolCallParser, app_of
from support.dialect_servers import a_dialect_server
from support.paths import TESTS

DIALECTS = ("messages", "systemone")

schema = schemathesis.openapi.from_asgi(
    "/schema/openapi.json",
    app_of(
        a_dialect_server(
            *DIALECTS,
            words=("Hm|", "Hi", "[f:{}]"),
            reasoning=FakeReasoningParser,
            tools=FakeToolCallParser,
        )
    ),
    config=schemathesis.Config.from_path(TESTS / "schemathesis.toml"),
)


@schema.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case: schemathesis.Case) -> None:
    case.call_and_validate()
