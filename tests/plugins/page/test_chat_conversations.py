"""Conversations that the browser keeps: the list, search, import, export, and 1,000 messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from support.fault_server import wait_until
from support.page_browser import PageServer, window
from support.page_steps import answered, ask, import_file

WATCH_CHANGES = """() => {
    window.changed = [];
    const finished = [...document.querySelectorAll(".message")].slice(0, -1);
    const note = (entries) => window.changed.push(...entries.map((each) => each.target.nodeName));
    for (const each of finished) new MutationObserver(note).observe(each, {
        subtree: true, childList: true, characterData: true});
}"""


def thousand_messages() -> dict[str, Any]:
    """Return a file with one conversation of 1,000 messages."""
    answer = "Some **bold** text, `code` and a list:\n\n- one\n- two\n\n```python\nprint({})\n```\n"
    return {
        "messages": [
            {"role": role, "content": text.format(at)}
            for at in range(500)
            for role, text in (("user", "Question {}"), ("assistant", answer))
        ]
    }


def test_conversations_outlive_the_page_and_can_be_renamed_searched_and_deleted(
    page: Page, server: PageServer
) -> None:
    for question, answer in (("About apples", "green"), ("About plums", "violet")):
        server.script(answer)
        ask(page, question)
        answered(page, answer)
        page.keyboard.press("Alt+n")
    page.reload()
    expect(page.locator(".entry-title")).to_have_text(["About plums", "About apples"])
    page.get_by_role("button", name="About apples", exact=True).click()
    answered(page, "green")
    page.get_by_role("button", name="About plums", exact=True).click()
    answered(page, "violet")
    page.go_back()
    answered(page, "green")
    page.reload()
    answered(page, "green")

    page.locator(".entry", has_text="About apples").hover()
    page.get_by_role("button", name="Rename About apples").click()
    page.get_by_label("Title").fill("Fruit")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Fruit")

    search = page.get_by_label("Search the conversations")
    search.fill("VIOLET")
    expect(page.locator(".entry-title")).to_have_text(["About plums"])
    search.fill("nowhere")
    expect(page.get_by_text("Nothing found.")).to_be_visible()
    search.fill("")

    page.locator(".entry", has_text="Fruit").hover()
    page.get_by_role("button", name="Delete Fruit").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".entry")).to_have_count(2)
    page.get_by_role("button", name="Delete Fruit").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".entry-title")).to_have_text(["About plums"])
    expect(page.locator(".message")).to_have_count(0)
    page.reload()
    expect(page.locator(".entry-title")).to_have_text(["About plums"])


def test_an_exported_file_imports_as_the_same_tree(page: Page, server: PageServer, tmp_path: Path) -> None:
    server.script("red")
    ask(page, "A colour")
    answered(page, "red")
    server.script("blue")
    page.get_by_role("button", name="Regenerate").click()
    answered(page, "blue")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export all").click()
    saved.value.save_as(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["format"] == "furiosa-llm-conversations"
    import_file(page, content)
    expect(page.locator(".entry")).to_have_count(2)
    answered(page, "blue")
    page.locator(".assistant").get_by_role("button", name="Previous branch").click()
    answered(page, "red")
    # A file of ours, exported again, differs in its ids and times only.
    texts = "() => fllm.conversation.path(fllm.runs.current.value).map((each) => [each.role, each.text])"
    assert page.evaluate(texts) == [["user", "A colour"], ["assistant", "red"]]


def test_an_answer_goes_on_while_another_conversation_is_shown(page: Page, server: PageServer) -> None:
    server.script("slow", " answer", stalls_after=1)
    ask(page, "First")
    expect(page.locator(".assistant.last .bubble")).to_have_text("slow")
    page.keyboard.press("Alt+n")
    expect(page.locator(".message")).to_have_count(0)
    expect(page.locator(".entry .dot")).to_have_count(1)
    page.get_by_role("button", name="First", exact=True).click()
    expect(page.locator(".assistant.last .bubble")).to_have_text("slow")
    page.get_by_role("button", name="Stop").click()
    answered(page, "slowContinue")


def test_a_thousand_messages_are_shown_and_finished_ones_are_not_rendered_again(
    page: Page, server: PageServer
) -> None:
    import_file(page, thousand_messages())
    expect(page.locator(".message")).to_have_count(1000)
    expect(page.locator(".message.last")).to_contain_text("print(499)")
    # The rest is text until it comes near, and can be found in the page.
    assert page.locator(".markdown").count() < 100
    expect(page.get_by_text("print(7)", exact=False).first).to_be_attached()
    server.script(*(f"word{at} " for at in range(300)))
    ask(page, "One more")
    expect(page.locator(".message")).to_have_count(1002)
    page.evaluate(WATCH_CHANGES)
    expect(page.locator(".assistant.last")).to_contain_text("word299")
    expect(page.locator(".assistant.last .facts-line")).to_contain_text("tokens")
    assert page.evaluate("window.changed") == []
    page.evaluate("() => { document.getElementById('messages').scrollTop = 0 }")
    expect(page.locator(".assistant").first.locator("strong")).to_have_text("bold")
    page.get_by_role("button", name="Go to the end").click()
    expect(page.locator(".assistant.last")).to_be_in_viewport()


def test_only_the_end_of_a_growing_answer_is_rendered(page: Page) -> None:
    counts = page.evaluate(
        """async () => {
            const place = document.createElement("div");
            const show = (text, growing) => fllm.render(
                fllm.html`<${fllm.Markdown} text=${text} growing=${growing} />`, place);
            const block = "Some *words*.\\n\\n- a\\n- b\\n\\n1. x\\n\\n2. y\\n\\n```\\ncode\\n```\\n\\n";
            const text = block.repeat(50);
            let calls = 0;
            const lexer = marked.lexer;
            marked.lexer = (...given) => { calls += given[0].length; return lexer(...given); };
            let first = null, kept = true;
            for (let at = 1; at <= text.length; at += 11) {
                show(text.slice(0, at), true);
                if (at > 200) first ??= place.querySelector("p");
                kept &&= !first || first === place.querySelector("p");
            }
            show(text, false);
            marked.lexer = lexer;
            const grown = place.innerHTML;
            fllm.render(null, place);
            show(text, false);
            return {calls, length: text.length, kept, same: grown === place.innerHTML};
        }"""
    )
    assert counts["kept"], "the first block's element stays"
    assert counts["same"], "the answer looks as if it had come at once"
    assert counts["calls"] < 20 * counts["length"]


NO_STORAGE = """for (const name of ["indexedDB", "localStorage", "sessionStorage"]) {
    Object.defineProperty(window, name, {get() { throw new DOMException("forbidden", "SecurityError") }});
}"""
SILENT_STORAGE = "IDBFactory.prototype.open = () => ({})"


@pytest.mark.parametrize("script", [NO_STORAGE, SILENT_STORAGE], ids=["forbidden", "silent"])
def test_a_browser_that_keeps_nothing_is_told_and_the_chat_works(
    browser: Browser, server: PageServer, script: str
) -> None:
    with window(browser) as page:
        page.add_init_script(script)
        page.goto(server.url)
        expect(page.locator(".sidebar")).to_contain_text("This browser keeps nothing")
        server.script("fine")
        ask(page, "Hi")
        answered(page, "fine")
        page.keyboard.press("Alt+n")
        page.get_by_role("button", name="Hi", exact=True).click()
        answered(page, "fine")


def test_two_tabs_of_one_conversation_keep_the_messages_of_both(page: Page, server: PageServer) -> None:
    server.script("one")
    ask(page, "First")
    answered(page, "one")
    other = page.context.new_page()
    other.goto(page.url)
    answered(other, "one")
    server.script("two")
    ask(page, "Second")
    answered(page, "two")
    # The other tab shows it, and goes on from there.
    answered(other, "two")
    server.script("three")
    ask(other, "Third")
    answered(other, "three")
    assert server.last_prompt() == "<user>First<assistant>one<user>Second<assistant>two<user>Third<assistant>"
    answered(page, "three")
    other.close()
    page.reload()
    expect(page.locator(".message")).to_have_count(6)


def test_messages_in_the_form_of_the_api_are_imported_with_their_parts(page: Page) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "See"}]
    import_file(
        page,
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": parts},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
            ]
        },
    )
    expect(page.locator(".user .plain")).to_have_text("See")
    expect(page.locator(".user img")).to_have_attribute("src", url)
    expect(page.locator(".tool .bubble")).to_contain_text("look")
    messages = page.evaluate(
        """() => fllm.conversation.path(fllm.runs.current.value).map(fllm.request.message)"""
    )
    assert messages == [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
    ]
    assert page.evaluate("fllm.runs.current.value.options.system") == "Be brief."


HOSTILE = {
    "title": {"a": 1},
    "options": {"__proto__": {"polluted": 1}, "system": "y", "stop": 5},
    "nodes": {
        "__proto__": {"role": "user", "text": "first", "parent": ""},
        "constructor": {"role": "assistant", "text": "<img src=x>", "parent": "__proto__", "request": 5},
        "loop": {"role": "user", "text": "never", "parent": "loop"},
        "wrong": 7,
    },
    "chosen": {"": "__proto__", "__proto__": "constructor", "toString": "loop"},
    "updated": 1e300,
}


def test_hostile_files_import_what_they_hold_and_change_nothing_else(page: Page) -> None:
    import_file(page, {"conversations": [None, 1, {"nodes": 5}, {"messages": "x"}, HOSTILE]})
    expect(page.locator(".message .bubble")).to_have_text(["first", "<img src=x>"])
    assert page.evaluate("[({}).polluted ?? null, Object.keys(Object.prototype).length]") == [None, 0]
    import_file(page, None)
    expect(page.locator(".sidebar [role=status]")).to_contain_text("holds no conversation")
    # In time that grows with the size of the file, not with its square.
    messages = [{"role": "user", "content": "x"}] * 20_000
    read = "text => Object.keys(fllm.conversation.fromFile(text)[0].nodes).length"
    assert page.evaluate(read, json.dumps({"messages": messages})) == 20_000


def test_a_conversation_that_is_deleted_amid_its_answer_stays_deleted(page: Page, server: PageServer) -> None:
    server.script("never", " ends", stalls_after=1)
    ask(page, "Endless")
    expect(page.locator(".assistant.last .bubble")).to_have_text("never")
    page.locator(".entry").hover()
    page.get_by_role("button", name="Delete Endless").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".entry")).to_have_count(0)
    wait_until(lambda: bool(server.engine.aborted), "the abort")
    page.reload()
    expect(page.get_by_text("kept here, in this browser only")).to_be_visible()
    expect(page.locator(".entry")).to_have_count(0)
