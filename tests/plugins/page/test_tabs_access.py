"""Look inside, side by side, the machine and plugins for screen readers, in both themes, on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect
from support.page_browser import PageServer, opened
from support.page_steps import violations


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_no_accessibility_rule_is_broken(
    browser: Browser, server: PageServer, theme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    server.script("Some words\nand", " more.")
    with opened(browser, server.url, color_scheme=theme, viewport=size) as (page, _):
        page.evaluate("void fllm.inside.ask({messages: [{role: 'user', content: 'Hi'}]})")
        page.locator("#generated-3").click()
        expect(page.locator(".phase-bar")).to_be_visible()
        assert violations(page) == []
        page.get_by_role("button", name="Report this parse").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")
        page.request.post(f"{server.url}v1/chat/completions", data={"messages": []})
        for tab, text in (("Machine", "Refused requests"), ("Plugins", "page"), ("Side by side", "Seed")):
            page.get_by_role("tab", name=tab).click()
            expect(page.get_by_role("tabpanel", name=tab)).to_contain_text(text)
            if tab == "Plugins":
                page.locator("details.plugin summary").first.click()
            assert violations(page) == []
            # Nothing is wider than the window.
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
