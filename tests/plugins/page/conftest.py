"""A browser, a server with a scripted engine, and the page of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from support.page_browser import PageServer, Watch, chromium, opened, page_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    """Start a server."""
    with page_server(tool_call_parser="hermes", reasoning_parser="granite", max_model_len=2**20) as server:
        yield server


@pytest.fixture
def watched(browser: Browser, server: PageServer) -> Iterator[tuple[Page, Watch]]:
    """Open the page. At the end, no error and no request to another origin may have been seen."""
    with opened(browser, server.url) as found:
        yield found


@pytest.fixture
def page(watched: tuple[Page, Watch]) -> Page:
    """Open the page."""
    return watched[0]
