"""The page in Chromium, served by a scripted engine in this process."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, Route, expect, sync_playwright

import fllm_page.plugin
from fllm.testing import ScriptedServer

TIMEOUT = 20_000.0
"""Milliseconds that an element may take to appear."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser. Without Chromium, skip the test, except in CI.

    Until it is closed, ``asyncio.run`` cannot be called in this thread.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        hint = "Chromium is not installed; scripts/ci-tools installs it on Debian"
        assert not os.environ.get("FLLM_CI"), hint
        pytest.skip(hint)
    expect.set_options(timeout=TIMEOUT)
    with sync_playwright() as playwright:
        # A container has no namespaces for the sandbox, and perhaps a small /dev/shm.
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()


class PageServer(ScriptedServer):
    """A scripted server with the page, which answers over HTTP."""

    url: str
    _server: uvicorn.Server
    _thread: threading.Thread

    @contextmanager
    def listening(self) -> Iterator[PageServer]:
        """Serve on a free port of this machine, in a thread."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self._server = server = uvicorn.Server(
            uvicorn.Config(self.app, log_level="critical", timeout_graceful_shutdown=1)
        )
        self._thread = thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield self
        finally:
            self.cut()

    def cut(self) -> None:
        """End all connections, and serve no more."""
        self._server.should_exit = True
        self._thread.join(20)

    def script(self, *pieces: str, stalls_after: int | None = None, fails_after: int | None = None) -> None:
        """Set what the next responses are, and forget the requests so far."""
        engine = self.engine
        engine.pieces, engine.stalls_after, engine.fails_after = list(pieces), stalls_after, fails_after
        engine.requests.clear()

    def last_prompt(self) -> str:
        """Return the prompt of the last request."""
        return self.decode(self.engine.requests[-1].token_ids)


@contextmanager
def page_server(**settings: Any) -> Iterator[PageServer]:
    """Yield a server with the page; ``settings`` are those of `ScriptedServer`."""
    with PageServer(fllm_page.plugin, **settings).listening() as server:
        yield server


class Watch:
    """What a page must not do: an error, a message of the console, a request to another origin."""

    def __init__(self, page: Page, url: str, expected: Sequence[str] = ()) -> None:
        self.problems: list[str] = []
        self.expected = list(expected)
        """Parts of messages that a test expects, such as "status of 401"."""
        self._origin = urlsplit(url).netloc
        self._page = page
        page.on("console", self._on_console)
        page.on("pageerror", self._on_error)
        page.on("request", self._on_request)

    def end(self) -> None:
        """Watch no more."""
        self._page.remove_listener("console", self._on_console)
        self._page.remove_listener("pageerror", self._on_error)
        self._page.remove_listener("request", self._on_request)

    def _on_error(self, error: Error) -> None:
        self.problems.append(f"error: {error}")

    def _on_console(self, message: ConsoleMessage) -> None:
        if not any(part in message.text for part in self.expected):
            self.problems.append(f"console: {message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._origin:
            self.problems.append(f"request to {request.url}")


VIEWPORT = {"width": 1280, "height": 800}


@contextmanager
def window(browser: Browser, **context: Any) -> Iterator[Page]:
    """Yield a new browser context's window, which `visited` opens the page in."""
    with browser.new_context(**{"viewport": VIEWPORT, **context}) as session:
        session.set_default_timeout(TIMEOUT)
        yield session.new_page()


@contextmanager
def visited(page: Page, url: str, *expected: str) -> Iterator[Watch]:
    """Open the page in a window, and yield its watch, which must see only what is ``expected``.

    At the end, the window is empty, and what the page has stored is deleted: many tests can share a window.
    """
    watch = Watch(page, url, expected)
    page.route(lambda address: urlsplit(address).netloc != urlsplit(url).netloc, _refuse)
    page.goto(url)
    page.locator("[role=tablist]").wait_for()
    try:
        yield watch
        assert not watch.problems, "\n".join(watch.problems)
    finally:
        watch.end()
        _forget(page, url)


def _forget(page: Page, url: str) -> None:
    page.evaluate("() => sessionStorage.clear()")
    page.unroute_all(behavior="ignoreErrors")
    page.goto("about:blank")
    page.context.clear_permissions()
    session = page.context.new_cdp_session(page)
    session.send("Storage.clearDataForOrigin", {"origin": url.rstrip("/"), "storageTypes": "all"})
    session.detach()


@contextmanager
def opened(browser: Browser, url: str, *expected: str, **context: Any) -> Iterator[tuple[Page, Watch]]:
    """Yield the page in a window of its own, and its watch, which must see only what is ``expected``."""
    with window(browser, **context) as page, visited(page, url, *expected) as watch:
        yield page, watch


def _refuse(route: Route) -> None:
    route.abort()
