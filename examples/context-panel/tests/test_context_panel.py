"""The panel, as the page of a server has it."""

from __future__ import annotations

from typing import ClassVar

import pytest
from fllm_context_panel import plugin

from fllm.testing import PagePanelContract, ScriptedServer, plugins_with


class TestContract(PagePanelContract):
    plugin: ClassVar[object] = plugin


@pytest.fixture(scope="module")
def server() -> ScriptedServer:
    return ScriptedServer(loaded=plugins_with(plugin))


def test_the_page_has_the_panel(server: ScriptedServer) -> None:
    panels = server.ask("GET", "/page/server").json()["panels"]
    assert {"name": "context", "title": "Context", "script": "page/panels/context.js"} in panels


def test_the_server_sends_the_script(server: ScriptedServer) -> None:
    response = server.ask("GET", "/page/panels/context.js")
    assert response.headers["content-type"].startswith("text/javascript")
    assert b"export function mount(" in response.content


def test_the_route_that_it_asks_counts_tokens(server: ScriptedServer) -> None:
    response = server.ask("POST", "/tokenize", json={"prompt": "four", "add_special_tokens": False})
    counted = response.json()
    assert (counted["count"], counted["max_model_len"]) == (4, 4096)
