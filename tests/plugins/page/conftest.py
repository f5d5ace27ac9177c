"""A browser, a server with a scripted engine, and the page of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from support.page_browser import PageServer, Watch, chromium, page_server, visited, window


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


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[Page]:
    """Open a window, which the tests of a file share."""
    with window(browser) as page:
        yield page


@pytest.fixture
def watched(shared: Page, server: PageServer) -> Iterator[tuple[Page, Watch]]:
    """Open the page. At the end, no error and no request to another origin may have been seen."""
    with visited(shared, server.url) as watch:
        yield shared, watch


@pytest.fixture
def page(watched: tuple[Page, Watch]) -> Page:
    """Open the page."""
    return watched[0]
