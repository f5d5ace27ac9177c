"""Two answers side by side in a browser."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect
from support.page_browser import PageServer


def side(page: Page, name: str) -> Locator:
    """Return one side."""
    return page.get_by_role("region", name=f"Side {name}")


def compare(page: Page, text: str) -> None:
    """Send a prompt to both sides."""
    page.get_by_role("tab", name="Side by side").click()
    page.get_by_label("Prompt", exact=True).fill(text)
    page.get_by_role("button", name="Compare").click()


def test_the_same_settings_give_the_same_answer(page: Page, server: PageServer) -> None:
    server.script("<think></think>", "Hello", " world")
    compare(page, "Hi")
    expect(page.get_by_text("Both answers are the same.")).to_be_visible()
    both = [each.sampling for each in server.engine.requests]
    assert len(both) == 2
    assert both[0].seed == both[1].seed == 1


def test_the_first_token_that_differs_is_marked(page: Page, server: PageServer) -> None:
    server.script("abcdef")
    page.get_by_role("tab", name="Side by side").click()
    side(page, "B").get_by_label("Max tokens").fill("3")
    compare(page, "Hi")
    expect(page.get_by_text("The answers differ from token 4 on.")).to_be_visible()
    expect(side(page, "A").locator(".differs")).to_have_text("d")
    expect(side(page, "B")).to_contain_text("3 tokens")


def test_settings_are_copied_to_the_other_side(page: Page) -> None:
    page.get_by_role("tab", name="Side by side").click()
    side(page, "A").get_by_label("Temperature").fill("0.5")
    side(page, "A").get_by_label("System prompt").fill("Be brief.")
    side(page, "A").get_by_role("button", name="Copy settings to B").click()
    expect(side(page, "B").get_by_label("Temperature")).to_have_value("0.5")
    expect(side(page, "B").get_by_label("System prompt")).to_have_value("Be brief.")


def test_one_can_look_inside_of_each_answer(page: Page, server: PageServer) -> None:
    server.script("xyz")
    compare(page, "Hi")
    side(page, "B").get_by_role("button", name="Look inside").click()
    expect(page.get_by_role("tab", name="Look inside")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#generated-0")).to_have_text("x")
