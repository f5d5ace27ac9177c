"""Whatever fits the published schema, or does not: never a 5xx, and always a documented answer."""

from __future__ import annotations

from pathlib import Path

import schemathesis
from api_fakes import Calls, Thinks, a_server, app_of
from hypothesis import HealthCheck, settings

schema = schemathesis.openapi.from_asgi(
    "/schema/openapi.json",
    app_of(a_server(["Hm|", "Hi", "[f:{}]"], reasoning=Thinks, tools=Calls)),
    config=schemathesis.Config.from_path(Path(__file__).parents[1] / "schemathesis.toml"),
)


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case: schemathesis.Case) -> None:
    case.call_and_validate()
