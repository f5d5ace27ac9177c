"""The chat in a browser: answers, stop, edit, branches, tools, schema, options."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from support.page_browser import PageServer


def ask(page: Page, text: str) -> None:
    """Send a message."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def test_an_answer_is_streamed_and_the_next_request_has_it(page: Page, server: PageServer) -> None:
    server.script("Hello", " **world**")
    ask(page, "Hi")
    expect(page.locator(".assistant strong")).to_have_text("world")
    expect(page.get_by_role("heading", level=1)).to_have_text("Hi")
    server.script("Again")
    ask(page, "And now?")
    expect(page.locator(".assistant.last")).to_contain_text("Again")
    assert "Hello **world**" in server.last_prompt()
    assert "And now?" in server.last_prompt()
