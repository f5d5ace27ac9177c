"""The plugins in a browser, and the panels that they add."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import pytest
from playwright.sync_api import Page, expect
from support.page_browser import PageServer, visited

import fllm
import fllm_page.plugin

COUNTER = """
export async function mount(element, page) {
  const models = await (await page.fetch("v1/models")).json();
  page.render(page.html`<p>${models.data.length} model, ${page.theme}</p>`, element);
}
"""


class Panels:
    """A plugin with panels: one that works, and three that fail."""

    @fllm.hookimpl
    def fllm_page_panels(self) -> Iterable[fllm.PagePanel]:
        yield fllm.PagePanel("counter", "Counter", COUNTER)
        yield fllm.PagePanel("raises", "Raises", "export function mount() { throw new Error('no data') }")
        yield fllm.PagePanel("empty", "Empty", "export const nothing = 1;")
        yield fllm.PagePanel("invalid", "Invalid", "export const = 1;")


@pytest.fixture(scope="module")
def panels() -> Iterator[PageServer]:
    """Start a server with panels."""
    with PageServer(fllm_page.plugin, Panels()).listening() as server:
        yield server


@pytest.fixture
def page(shared: Page, panels: PageServer) -> Iterator[Page]:
    """Open the page."""
    with visited(shared, panels.url):
        yield shared


def test_a_panel_is_a_tab_with_the_servers_data(page: Page) -> None:
    page.get_by_role("tab", name="Counter").click()
    expect(page.get_by_role("tabpanel", name="Counter")).to_have_text("1 model, light")


@pytest.mark.parametrize(
    ("title", "message"),
    [("Raises", "no data"), ("Empty", "exports no function mount"), ("Invalid", "Unexpected token")],
)
def test_a_panel_that_fails_shows_why_and_breaks_nothing(page: Page, title: str, message: str) -> None:
    page.get_by_role("tab", name=title).click()
    expect(page.get_by_role("tabpanel", name=title).get_by_role("alert")).to_contain_text(message)
    page.get_by_role("tab", name="Plugins").click()
    expect(page.get_by_role("heading", name="Plugins")).to_be_visible()


def test_plugins_have_their_options_and_errors(page: Page) -> None:
    option = {"name": "token", "type": "string", "default": None, "required": True, "summary": "The token."}
    plugin = {
        "distribution": "acme",
        "version": "1.0",
        "source": "acme",
        "hooks": ["fllm_tool_parsers"],
        "offers": {"tool-call parser": ["acme_calls"]},
        "seconds": 0.01,
        "error": None,
        "where": None,
        "disabled": False,
        "options": [],
    }
    listing = {
        "plugins": [
            plugin
            | {"name": "good", "options": [option | {"secret": True, "value": None, "source": "file"}]},
            plugin | {"name": "bad", "error": "ImportError: no module", "where": "acme.py:3"},
        ],
        "conflicts": ["two plugins register acme_calls"],
        "unmatched": ["otell"],
    }
    page.route("**/page/plugins", lambda route: route.fulfill(body=json.dumps(listing)))
    page.get_by_role("tab", name="Plugins").click()
    view = page.get_by_role("tabpanel", name="Plugins")
    expect(view).to_contain_text("ImportError: no module")  # an error is open from the start
    expect(view).to_contain_text("two plugins register acme_calls")
    expect(view).to_contain_text("--disable-plugin otell")
    view.locator("summary", has_text="good").click()
    expect(view.get_by_role("row", name="token")).to_contain_text("hidden")
    view.get_by_placeholder("Filter").fill("bad")
    expect(view.locator("details")).to_have_count(1)


def test_the_page_itself_is_listed(page: Page) -> None:
    page.get_by_role("tab", name="Plugins").click()
    expect(page.get_by_role("tabpanel", name="Plugins").locator("details.plugin")).not_to_have_count(0)
