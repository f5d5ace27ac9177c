"""The schema describes the routes of dialects."""

from __future__ import annotations

from support.api_fakes import ask
from support.dialect_servers import a_dialect_server


def test_all_small_dialects_are_described_together() -> None:
    server = a_dialect_server("tokens", "ollama", "systemone", "pooling")
    paths = ask(server, "GET", "/schema/openapi.json").json()["paths"]
    for path in ("/tokenize", "/api/chat", "/api/embed", "/v1/systemone", "/v1/decisions"):
        assert {"200", "400", "401"} <= set(paths[path]["post"]["responses"]), path
