"""The page at `/schema`: Swagger UI without the net."""

from __future__ import annotations

import gzip
import hashlib

import pytest
from playwright.sync_api import expect
from support.page_browser import Watch, chromium, page_server

from fllm.testing import ScriptedServer
from fllm_api.openapi.page import DIRECTORY, MEDIA_TYPES, VERSION


@pytest.fixture(scope="module")
def server() -> ScriptedServer:
    return ScriptedServer(root_path="/llm")


def test_the_page_names_files_of_the_same_server_below_its_prefix(server: ScriptedServer) -> None:
    response = server.ask("GET", "/llm/schema")
    assert response.status == 200
    page = response.content.decode()
    assert f'src="/llm/schema/files/{VERSION}/swagger-ui-bundle.js"' in page
    assert 'data-url="/llm/schema/openapi.json"' in page
    assert "://" not in page


def test_the_policy_allows_no_inline_code_and_no_other_host(server: ScriptedServer) -> None:
    policy = server.ask("GET", "/schema").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("name", MEDIA_TYPES)
def test_its_files_are_served_compressed_and_plain(name: str, server: ScriptedServer) -> None:
    path = f"/schema/files/{VERSION}/{name}"
    plain = server.ask("GET", path)
    packed = server.ask("GET", path, headers={"accept-encoding": "gzip"})
    assert plain.content == gzip.decompress(packed.content) == (DIRECTORY / name).read_bytes()
    assert plain.headers["content-type"].startswith(MEDIA_TYPES[name])
    assert packed.headers["content-encoding"] == "gzip"


@pytest.mark.parametrize("path", [f"{VERSION}/LICENSE", f"{VERSION}/..%2Fpage.py", "1.0/swagger-ui.css"])
def test_no_other_file_is_served(path: str, server: ScriptedServer) -> None:
    assert server.ask("GET", f"/schema/files/{path}").status == 404


def test_the_files_are_those_that_npm_has() -> None:
    for line in (DIRECTORY / "VERSIONS").read_text().splitlines()[1:]:
        _, version, _, digest, name = line.split()
        assert version == VERSION
        assert digest == f"sha256:{hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest()}"
    assert {"LICENSE", "NOTICE"} <= {file.name for file in DIRECTORY.iterdir()}


def test_a_browser_shows_the_operations_and_asks_no_other_host() -> None:
    with chromium() as browser, page_server() as listening:
        page = browser.new_page()
        watch = Watch(page, listening.url)
        page.goto(f"{listening.url}schema")
        expect(page.locator("h1.title")).to_contain_text("furiosa-llm", timeout=20_000)
        page.locator('[data-path="/v1/chat/completions"]').click()
        expect(page.locator(".opblock-body").first).to_contain_text("messages")
        assert not watch.problems, watch.problems
