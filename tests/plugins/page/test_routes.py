"""`GET /`: the page, or a line for clients that read no HTML."""

from __future__ import annotations

import pytest

from fllm.testing import ScriptedServer
from fllm_page import plugin
from fllm_page.routes import accepts_html


@pytest.fixture(scope="module")
def server() -> ScriptedServer:
    return ScriptedServer(plugin, api_keys=["k"])


def test_the_page_needs_no_key_and_its_data_do(server: ScriptedServer) -> None:
    page = server.ask("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert server.ask("GET", "/page/server").status == 401


def test_head_is_answered(server: ScriptedServer) -> None:
    # The command line of Ollama asks so whether a server runs.
    head = server.ask("HEAD", "/", headers={"accept": "application/json"})
    assert (head.status, head.content) == (200, b"")


def test_a_client_that_reads_no_html_gets_a_line(server: ScriptedServer) -> None:
    response = server.ask("GET", "/", headers={"accept": "application/json"})
    assert (response.status, response.content) == (200, b"furiosa-llm is running\n")
    assert response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", True),
        ("*/*", True),
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/json, TEXT/HTML;q=0.1", True),
        ("application/json", False),
        ("text/plain", False),
    ],
)
def test_html_is_for_those_who_accept_it(accept: str, expected: bool) -> None:
    assert accepts_html(accept) is expected
