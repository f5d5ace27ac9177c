"""What tests do in the page's chat."""

from __future__ import annotations

import json
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect


def ask(page: Page, text: str) -> None:
    """Send a message."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answered(page: Page, text: str) -> None:
    """Wait until the last answer is complete and has this text."""
    expect(page.locator(".assistant.last .bubble")).to_have_text(text)
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_attached()


def body_of(page: Page, text: str) -> dict[str, Any]:
    """Send a message, and return the body of its request."""
    with page.expect_request("**/page/chat") as sent:
        ask(page, text)
    found: dict[str, Any] = sent.value.post_data_json
    return found


def import_file(page: Page, content: object) -> None:
    """Import a file of conversations."""
    file = {"name": "c.json", "mimeType": "application/json", "buffer": json.dumps(content).encode()}
    page.locator("input[type=file][accept*=json]").set_input_files(file)


def violations(page: Page) -> list[str]:
    """Return the accessibility rules that the page breaks, with the elements."""
    return [
        f"{each['id']}: {node['html'][:200]} {node['failureSummary']}"
        for each in Axe().run(page).response["violations"]
        for node in each["nodes"]
    ]
