"""The page by keyboard and for screen readers, keys, and what happens when the engine or the server ends."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect
from support.page_browser import PageServer, opened, page_server
from support.page_steps import answered, ask, violations

WEATHER = '[{"name": "get_weather"}]'
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Seoul"}}\n</tool_call>'
ANSWER = (
    "# Title\n\nText with a [link](https://a.example) and `code`.\n\n```python\nprint(1)\n```\n\n"
    "|a|b|\n|-|-|\n|1|2|\n\n> quote\n"
)


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 360)])
def test_no_accessibility_rule_is_broken(
    browser: Browser, server: PageServer, theme: str, width: int
) -> None:
    size = {"width": width, "height": 800}
    with opened(browser, server.url, color_scheme=theme, viewport=size, reduced_motion="reduce") as (page, _):
        assert violations(page) == []
        server.script("Here is my thought process: hm. Here is my response: ", ANSWER)
        ask(page, "Hi")
        expect(page.locator(".facts-line")).to_contain_text("tokens")
        page.keyboard.press("Alt+o")
        page.get_by_label("Functions (JSON)").fill(WEATHER)
        page.get_by_label("JSON schema").fill("{")
        page.get_by_label("JSON schema").blur()
        assert violations(page) == []
        page.keyboard.press("Escape")
        expect(page.get_by_role("complementary")).to_have_count(1 if width > 900 else 0)
        page.evaluate("() => fllm.options.set('schema', '')")
        server.script(CALL)
        ask(page, "Weather?")
        expect(page.get_by_label("Result of get_weather")).to_be_visible()
        assert violations(page) == []
        # Nothing is wider than the window.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("tab", name="Chat").press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page) == []


def test_the_chat_works_with_the_keyboard_alone(page: Page, server: PageServer) -> None:
    server.script("Hello")
    # The box has the focus from the start.
    page.keyboard.type("line one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("line two")
    page.keyboard.press("Enter")
    answered(page, "Hello")
    assert server.last_prompt() == "<user>line one\nline two<assistant>"
    # From the box back through the actions of the answer.
    page.keyboard.press("Alt+ArrowUp")
    expect(page.locator(".assistant")).to_be_focused()
    page.keyboard.press("Alt+ArrowUp")
    expect(page.locator(".user")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator(".user").get_by_role("button", name="Edit")).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_label("Edit the message")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Edit the message")).to_have_count(0)
    page.keyboard.press("Alt+o")
    expect(page.get_by_role("complementary", name="Options")).to_be_visible()
    page.keyboard.press("Alt+n")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    expect(page.locator(".message")).to_have_count(0)


def test_the_box_keeps_the_focus_when_a_message_is_sent_with_the_mouse(
    page: Page, server: PageServer
) -> None:
    server.script("Hello")
    page.keyboard.type("Hi")
    page.get_by_role("button", name="Send", exact=True).click()
    answered(page, "Hello")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


@pytest.mark.parametrize("path", ["llm", "llm/"])
def test_behind_a_proxy_all_addresses_have_its_prefix(page: Page, server: PageServer, path: str) -> None:
    page.route(
        "**/llm**",
        lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/llm", "", 1))),
    )
    page.route("**/llm/**", lambda route: route.fulfill(json={"models": [{"name": "proxied"}]}))
    page.route("**/llm/", lambda route: route.fulfill(response=route.fetch(url=server.url)))
    page.goto(server.url + path)
    expect(page.locator(".model-name")).to_have_text("proxied")


def test_arrow_keys_change_tabs_and_the_url_names_the_tab(page: Page) -> None:
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("End")
    last = page.get_by_role("tab").last
    expect(last).to_be_focused()
    expect(last).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Chat")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(last).to_be_focused()
    page.reload()
    expect(last).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page.get_by_role("tab", name="Chat")).to_have_attribute("aria-selected", "true")


def test_question_mark_lists_the_shortcuts_and_is_a_character_in_a_text(page: Page) -> None:
    page.get_by_label("Message", exact=True).focus()
    page.keyboard.type("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("tab", name="Chat").focus()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("Stop the answer")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("tab", name="Chat")).to_be_focused()


def test_a_screen_reader_hears_the_finished_answer_once(page: Page, server: PageServer) -> None:
    page.evaluate(
        """() => {
            window.heard = [];
            const region = [...document.querySelectorAll("[aria-live]")];
            if (region.length !== 1) throw new Error("one live region");
            new MutationObserver(() => region[0].textContent && window.heard.push(region[0].textContent))
                .observe(region[0], {childList: true, characterData: true, subtree: true});
        }"""
    )
    server.script(*(f"part {at} " for at in range(20)))
    ask(page, "Hi")
    page.wait_for_function("() => window.heard.length > 0")
    expect(page.locator(".facts-line")).to_contain_text("tokens")
    heard = page.evaluate("window.heard")
    assert heard == ["".join(f"part {at} " for at in range(20))]


def test_the_theme_can_be_chosen_and_stays(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name=re.compile("^Theme: auto")).click()
    page.get_by_role("button", name=re.compile("^Theme: light")).click()
    assert page.evaluate(ground) != light
    page.reload()
    assert page.evaluate(ground) != light


def test_a_wrong_key_is_told_and_the_right_one_repeats_the_request(browser: Browser) -> None:
    with (
        page_server(api_keys=["right-key"], pieces=["Hello"]) as server,
        opened(browser, server.url, "status of 401") as (page, _),
    ):
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_contain_text("This server needs an API key.")
        assert violations(page) == []
        dialog.get_by_label("Key", exact=True).fill("wrong-key")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The server refused this key.")
        dialog.get_by_role("button", name="Close").click()
        ask(page, "Hi")
        expect(dialog).to_contain_text("The server refused this key.")
        # No header can hold this one.
        dialog.get_by_label("Key", exact=True).fill("열쇠")
        page.keyboard.press("Enter")
        expect(dialog.get_by_label("Key", exact=True)).to_have_value("")
        expect(dialog).to_contain_text("The server refused this key.")
        dialog.get_by_label("Key", exact=True).fill("right-key")
        page.keyboard.press("Enter")
        answered(page, "Hello")
        page.reload()
        ask(page, "Again")
        answered(page, "Hello")
        assert page.evaluate("Object.values(localStorage).join()").find("right-key") < 0


def test_what_came_before_the_engine_failed_is_kept(page: Page, server: PageServer) -> None:
    server.script("It was a dark", " night", fails_after=1)
    ask(page, "A story")
    expect(page.locator(".failure")).to_contain_text("the scripted engine failed")
    expect(page.locator(".assistant .markdown")).to_have_text("It was a dark")
    page.reload()
    expect(page.locator(".failure")).to_contain_text("the scripted engine failed")
    server.script(" and stormy night")
    page.get_by_role("button", name="Continue").click()
    answered(page, "It was a dark and stormy night")
    assert server.last_prompt() == "<user>A story<assistant>It was a dark"


def test_a_server_that_ends_amid_an_answer_is_told_and_the_answer_is_kept(browser: Browser) -> None:
    with page_server() as server, opened(browser, server.url, "ERR_", "status of 5") as (page, _):
        server.script("Once", " upon", stalls_after=1)
        ask(page, "A story")
        expect(page.locator(".assistant .markdown")).to_have_text("Once")
        server.cut()
        expect(page.locator(".failure")).to_be_visible()
        expect(page.locator(".assistant .markdown")).to_have_text("Once")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".assistant.last .failure")).to_contain_text("The server does not answer")
