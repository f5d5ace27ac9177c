"""The chat in a browser: answers, stop, edit, branches, tools, options, images."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect
from support.fault_server import wait_until
from support.page_browser import PageServer, Watch
from support.page_steps import answered, ask, body_of

WEATHER = (
    '[{"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]'
)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Seoul"}}\n</tool_call>'
# A red pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"


def test_an_answer_is_streamed_and_the_next_request_has_it(page: Page, server: PageServer) -> None:
    server.script("Hello", " **world**")
    ask(page, "Hi")
    expect(page.locator(".assistant strong")).to_have_text("world")
    expect(page.get_by_role("heading", level=1)).to_have_text("Hi")
    server.script("Again")
    ask(page, "And now?")
    answered(page, "Again")
    assert server.last_prompt() == "<user>Hi<assistant>Hello **world**<user>And now?<assistant>"


def test_stop_keeps_what_came_and_continue_goes_on_from_there(page: Page, server: PageServer) -> None:
    server.script("Once", " upon", stalls_after=1)
    ask(page, "A story")
    expect(page.locator(".assistant.last .bubble")).to_have_text("Once")
    page.keyboard.press("Escape")
    expect(page.locator(".assistant.last")).to_contain_text("stopped")
    wait_until(lambda: server.engine.requests[0].request_id in server.engine.aborted, "the abort")
    server.script(" upon a time")
    page.get_by_role("button", name="Continue").click()
    answered(page, "Once upon a time")
    assert server.last_prompt() == "<user>A story<assistant>Once"


def test_an_edited_message_begins_a_branch_and_both_branches_stay(page: Page, server: PageServer) -> None:
    server.script("red")
    ask(page, "A colour")
    answered(page, "red")
    server.script("seven")
    page.locator(".user").get_by_role("button", name="Edit").click()
    page.get_by_label("Edit the message").fill("A number")
    page.keyboard.press("Enter")
    answered(page, "seven")
    assert server.last_prompt() == "<user>A number<assistant>"
    expect(page.locator(".user .branches")).to_contain_text("2 / 2")
    page.locator(".user").get_by_role("button", name="Previous branch").click()
    answered(page, "red")
    expect(page.locator(".user .bubble")).to_have_text("A colour")


def test_another_answer_stands_beside_the_first_one(page: Page, server: PageServer) -> None:
    server.script("one")
    ask(page, "Count")
    answered(page, "one")
    server.script("two")
    page.get_by_role("button", name="Regenerate").click()
    answered(page, "two")
    assert server.last_prompt() == "<user>Count<assistant>"
    page.locator(".assistant").get_by_role("button", name="Previous branch").click()
    answered(page, "one")


def test_an_answer_can_be_edited_and_the_conversation_goes_on_from_it(page: Page, server: PageServer) -> None:
    server.script("wrong")
    ask(page, "Say")
    answered(page, "wrong")
    page.locator(".assistant").get_by_role("button", name="Edit").click()
    page.get_by_label("Edit the message").fill("right")
    page.get_by_role("button", name="Keep").click()
    answered(page, "right")
    server.script("yes")
    ask(page, "Sure?")
    answered(page, "yes")
    assert server.last_prompt() == "<user>Say<assistant>right<user>Sure?<assistant>"


def test_reasoning_is_folded_until_it_is_opened(page: Page, server: PageServer) -> None:
    server.script("Here is my thought process: ", "two and two. ", "Here is my response: ", "4")
    ask(page, "2 + 2")
    expect(page.locator(".assistant.last .markdown")).to_have_text("4")
    reasoning = page.locator(".reasoning .plain")
    expect(reasoning).not_to_be_visible()
    page.locator(".reasoning summary").click()
    expect(reasoning).to_contain_text("two and two.")


def test_a_tool_call_is_shown_and_answered_by_hand(page: Page, server: PageServer) -> None:
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Functions (JSON)").fill(WEATHER)
    server.script("Let me look.", CALL)
    body = body_of(page, "Weather in Seoul?")
    assert body["tools"][0]["function"]["name"] == "get_weather"
    expect(page.locator(".call-name code")).to_have_text("get_weather")
    expect(page.locator(".call pre")).to_have_text('{\n "city": "Seoul"\n}', use_inner_text=False)
    server.script("It is sunny.")
    page.get_by_label("Result of get_weather").fill('{"sky": "clear"}')
    page.get_by_role("button", name="Send the result").click()
    answered(page, "It is sunny.")
    assert '<tool>{"sky": "clear"}' in server.last_prompt()
    expect(page.locator(".tool .bubble")).to_contain_text("Result of get_weather")


def test_options_are_in_the_request_and_empty_ones_are_not(page: Page, server: PageServer) -> None:
    server.script("ok")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Top k").fill("7")
    page.get_by_label("Seed").fill("42")
    page.get_by_label("Max tokens").fill("33")
    page.get_by_label("Stop, one per line").fill("END\n\\n\\n")
    body = body_of(page, "Hi")
    answered(page, "ok")
    assert body == {
        "model": "scripted",
        "temperature": 0.3,
        "top_k": 7,
        "seed": 42,
        "max_tokens": 33,
        "stop": ["END", "\n\n"],
        "inspect": True,
        "stream": True,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    }
    page.reload()
    page.get_by_role("button", name="New conversation").first.click()
    expect(page.get_by_label("Temperature")).to_have_value("0.3")


def test_a_json_schema_is_sent_and_a_wrong_one_is_not(
    watched: tuple[Page, Watch], server: PageServer
) -> None:
    page, watch = watched
    watch.expected.append("status of 400")  # the scripted engine has no grammar
    page.get_by_role("button", name="Options").click()
    box = page.get_by_label("JSON schema")
    box.fill('{"type": ')
    server.script("{}")
    ask(page, "Hi")
    expect(page.locator(".composer [role=alert]")).to_contain_text("JSON schema: ")
    expect(page.get_by_label("Message", exact=True)).to_have_value("Hi")
    assert not server.engine.requests
    box.fill('{"type": "object"}')
    with page.expect_request("**/page/chat") as sent:
        page.get_by_role("button", name="Send").click()
    assert sent.value.post_data_json["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_the_servers_message_is_shown_and_the_answer_can_be_tried_again(
    watched: tuple[Page, Watch], server: PageServer
) -> None:
    page, watch = watched
    watch.expected.append("status of 400")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Top p").fill("7")
    ask(page, "Hi")
    expect(page.locator(".failure")).to_contain_text("top_p")
    page.get_by_label("Top p").fill("1")
    server.script("fine")
    page.get_by_role("button", name="Retry").click()
    answered(page, "fine")


def test_a_model_without_images_refuses_them(page: Page, server: PageServer) -> None:
    expect(page.get_by_role("region", name="Messages")).to_contain_text("scripted")
    expect(page.locator("input[type=file][accept*=image]")).to_have_count(0)


def test_images_of_a_file_and_of_the_clipboard_are_sent(page: Page, server: PageServer) -> None:
    page.evaluate(
        """() => { fllm.server.value = {models: [{name: "eyes", capabilities: {images: true}}]} }"""
    )
    pixel = {"name": "a.png", "mimeType": "image/png", "buffer": base64.b64decode(PNG)}
    page.locator("input[type=file][accept*=image]").set_input_files(pixel)
    expect(page.locator(".thumbs img")).to_have_count(1)
    page.evaluate(
        """png => {
            const bytes = Uint8Array.from(atob(png), (each) => each.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "b.png", {type: "image/png"}));
            document.getElementById("composer").dispatchEvent(
                new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
        }""",
        PNG,
    )
    expect(page.locator(".thumbs img")).to_have_count(2)
    page.get_by_role("button", name="Remove image 2").click()
    page.route("**/page/chat", lambda route: route.fulfill(content_type="text/event-stream", body=""))
    with page.expect_request("**/page/chat") as sent:
        ask(page, "What is it?")
    content = sent.value.post_data_json["messages"][0]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "text", "text": "What is it?"},
    ]


@pytest.fixture
def copied(page: Page, server: PageServer) -> dict[str, str]:
    """Return what "Copy as curl" and "Copy as Python" give for an answer."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    # Tokens to look inside are for the page only.
    page.evaluate("() => void (fllm.settings.inspect.value = false)")
    server.script("first")
    ask(page, "It's “1”")
    answered(page, "first")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Top k").fill("9")
    page.get_by_label("System prompt").fill('A "quoted" \\ $HOME `x`\nJSON')
    server.script("second")
    ask(page, "2")
    answered(page, "second")
    texts = {}
    for name in ("curl", "Python"):
        page.locator(".assistant.last summary", has_text="More").click()
        page.get_by_role("button", name=f"Copy as {name}").click()
        page.wait_for_function(
            "name => navigator.clipboard.readText().then((t) => t.includes(name))", arg=name.lower()
        )
        texts[name] = page.evaluate("navigator.clipboard.readText()")
    return texts


def test_a_copied_command_sends_the_same_request(copied: dict[str, str], server: PageServer) -> None:
    asked = server.engine.requests[-1]
    for name, program in (("curl", "bash"), ("Python", sys.executable)):
        server.script("second")
        done = subprocess.run(
            [program, "-c", copied[name]],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "OPENAI_API_KEY": "none"},
        )
        assert "second" in done.stdout, done.stderr
        again = server.engine.requests[-1]
        assert again.token_ids == asked.token_ids
        assert again.sampling == asked.sampling


def test_a_model_and_its_adapters_can_be_chosen_and_have_their_own_defaults(page: Page) -> None:
    page.evaluate(
        """() => { fllm.server.value = {sampling_defaults: {temperature: 0.9}, models: [
            {name: "small", state: "loaded", adapters: ["polite"], sampling_defaults: {temperature: 0.5}},
            {name: "large", state: "unloaded"}]} }"""
    )
    choice = page.get_by_label("Model")
    expect(choice.locator("option")).to_have_text(["small", "polite", "large (unloaded)"])
    page.get_by_role("button", name="Options").click()
    expect(page.get_by_label("Temperature")).to_have_attribute("placeholder", "0.5")
    choice.select_option("large")
    expect(page.get_by_label("Temperature")).to_have_attribute("placeholder", "0.9")
    choice.select_option("polite")
    page.route("**/page/chat", lambda route: route.fulfill(content_type="text/event-stream", body=""))
    assert body_of(page, "Hi")["model"] == "polite"
    expect(page.locator(".failure")).to_contain_text("The stream ended before the answer did.")


def test_another_answer_ends_the_one_that_is_generated(page: Page, server: PageServer) -> None:
    server.script("one")
    ask(page, "First")
    answered(page, "one")
    server.script("two", stalls_after=1)
    ask(page, "Second")
    expect(page.locator(".assistant.last .bubble")).to_have_text("two")
    server.script("three")
    page.locator(".assistant").first.hover()
    page.locator(".assistant").first.get_by_role("button", name="Regenerate").click()
    answered(page, "three")
    page.locator(".assistant").get_by_role("button", name="Previous branch").click()
    expect(page.locator(".assistant.last .bubble")).to_contain_text("two")
    assert page.evaluate("fllm.runs.running.value.size") == 0
