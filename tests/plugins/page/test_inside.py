"""Look inside in a browser: tokens, their probabilities, the parsers, and the report of a parse."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, expect
from support.page_browser import PageServer, Watch, page_server
from support.page_steps import answered, ask, body_of

from fllm import EngineOutput, GenerateRequest, RequestError
from fllm.testing.scripted_engine import ScriptedEngine
from fllm_api.cli.plugins.parse import parse

CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    """Start a server whose parsers are those of the texts below."""
    with page_server(tool_call_parser="hermes", reasoning_parser="glm45") as server:
        yield server


def look_inside(page: Page, text: str = "Hi", **body: Any) -> None:
    """Ask in the tab "Look inside", and wait for the end of the answer."""
    messages = [{"role": "user", "content": text}]
    page.evaluate("body => void fllm.inside.ask(body)", {"messages": messages, **body})
    expect(page.locator(".inside .summary dt", has_text="End")).to_be_visible()


def reported(page: Page, server: PageServer, **body: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the events that the server reports for the same request, by name."""
    request = {"messages": [{"role": "user", "content": "Hi"}], "inspect": True, **body}
    stream = page.request.post(f"{server.url}page/chat", data=request).text()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, data in re.findall(r"event: (\w+)\r?\ndata: (.*)", stream):
        found.setdefault(name, []).append(json.loads(data))
    return found


def texts(page: Page, name: str) -> list[str | None]:
    """Return the texts of the tokens in a list."""
    shown = page.locator(f"[id^={name}-][data-at]")
    shown.first.wait_for(state="attached")  # tokens become elements when they are near the view
    return shown.evaluate_all("all => all.map(each => each.textContent)")


def test_the_tokens_are_those_that_the_server_reports(page: Page, server: PageServer) -> None:
    server.script("One", "\ttwo", " <three>&amp;")
    look_inside(page)
    shown = reported(page, server)
    marks = str.maketrans({"\n": "↵\n", "\t": "⇥\t"})
    assert texts(page, "generated") == [token["text"].translate(marks) for token in shown["token"]]
    assert "".join(texts(page, "generated")).startswith("One⇥\ttwo <three>")  # type: ignore[arg-type]
    assert texts(page, "prompt") == [token["text"] for token in shown["prompt"][0]["tokens"]]
    assert page.evaluate("fllm.inside.current.value.prompt.text") == shown["prompt"][0]["text"]


def test_arrow_keys_show_the_alternatives_of_each_token(page: Page, server: PageServer) -> None:
    server.script("ab")
    look_inside(page)
    page.get_by_role("listbox", name="Generated tokens").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    flow = page.get_by_role("listbox", name="Generated tokens")
    expect(flow).to_have_attribute("aria-activedescendant", "generated-1")
    detail = page.get_by_label("The selected token", exact=True)
    expect(detail.locator(".token-name")).to_contain_text("b")
    expect(detail).to_contain_text("37 %")  # the scripted engine's log-probability is -1
    expect(page.locator("#generated-1")).to_have_attribute("aria-label", '"b", 37 %')
    page.keyboard.press("Escape")
    expect(detail).to_contain_text("Point at a token")


def test_a_click_and_the_least_certain_button_select_a_token(page: Page, server: PageServer) -> None:
    server.script("abc")
    look_inside(page)
    page.locator("#generated-2").click()
    expect(page.locator("#generated-2")).to_have_attribute("aria-selected", "true")
    page.get_by_role("button", name="Least certain").click()
    expect(page.locator("#generated-0")).to_have_attribute("aria-selected", "true")


def test_raw_text_stands_beside_the_events_of_its_parser(page: Page, server: PageServer) -> None:
    server.script("<think>", "Which", " city?", "</think>", "Let me see.", CALL)
    look_inside(page, tools=[TOOL])
    rows = page.locator("table.parse tbody tr")
    expect(rows.filter(has_text="Which city?").locator(".event")).to_have_text(
        re.compile(r"reasoning\s*by glm45\s*Which city\?")
    )
    expect(rows.filter(has_text="Let me see.").locator(".event").first).to_have_text(
        re.compile(r"text\s*by hermes\s*Let me see\.")
    )
    expect(page.locator(".event-tool_start")).to_have_text(re.compile(r"tool call\s*get_weather\s*by hermes"))
    expect(page.locator(".event-tool_arguments")).to_contain_text('{"city": "Paris"}')
    raw = page.locator("table.parse pre.raw").all_text_contents()
    assert "".join(raw) == f"<think>Which city?</think>Let me see.{CALL}"


def test_a_report_is_a_sample_that_the_command_for_parsers_reads(
    page: Page, server: PageServer, tmp_path: Path
) -> None:
    server.script("<think>Mr. Smith asks.</think>", "For Mr. Smith: ", CALL)
    look_inside(page, tools=[TOOL])
    page.get_by_role("button", name="Report this parse").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Replace", exact=True).fill("Smith")
    dialog.get_by_label("with", exact=True).fill("X")
    dialog.get_by_role("button", name="Replace everywhere").click()
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Save the sample").click()
    assert download.value.suggested_filename == "hermes-sample.jsonl"
    file = tmp_path / "sample.jsonl"
    download.value.save_as(file)
    sample = json.loads(file.read_text(encoding="utf-8"))
    assert (sample["parser"], sample["kind"]) == ("hermes", "tool-call")
    assert sample["tools"][0]["function"]["name"] == "get_weather"
    assert sample["text"] == f"For Mr. X: {CALL}"
    done = CliRunner().invoke(parse, ["--samples", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "ToolStart(index=0, name='get_weather', id=None)" in done.output


def test_a_report_that_is_no_sample_any_more_cannot_be_saved(page: Page, server: PageServer) -> None:
    server.script("<think>Hm.</think>Yes.")
    look_inside(page)
    page.get_by_role("button", name="Report this parse").click()
    page.get_by_label("Sample").fill('{"parser": ')
    expect(page.get_by_role("alert")).to_contain_text("This is not JSON")
    expect(page.get_by_role("button", name="Save the sample")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_only_tokens_near_the_viewport_are_elements(page: Page, server: PageServer) -> None:
    server.script(*["word " * 20 + "\n"] * 30)
    look_inside(page, text="a line\n" * 100, max_tokens=3000)
    flow = page.get_by_role("listbox", name="Generated tokens")
    assert len(flow.text_content() or "") > 3000
    assert flow.locator("[data-at]").count() < 2500
    flow.focus()
    page.keyboard.press("End")
    expect(page.locator("#generated-2999")).to_be_in_viewport()


def test_an_answer_that_is_stopped_keeps_its_tokens(page: Page, server: PageServer) -> None:
    server.script("a", "b", "c", stalls_after=2)
    page.get_by_role("tab", name="Look inside").click()
    page.get_by_placeholder("Ask something to look inside").fill("Hi")
    page.keyboard.press("Enter")
    expect(page.locator("#generated-1")).to_have_text("b")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
    assert texts(page, "generated") == ["a", "b"]


@pytest.mark.parametrize("recorded", [True, False])
def test_one_looks_inside_of_an_answer_of_the_chat(page: Page, server: PageServer, recorded: bool) -> None:
    page.evaluate("recorded => void (fllm.settings.inspect.value = recorded)", recorded)
    server.script("<think></think>", "Hello")
    ask(page, "Hi")
    answered(page, "Hello")
    page.locator(".assistant").get_by_text("More").click()
    page.get_by_role("button", name="Look inside").click()
    expect(page.locator(".inside .summary dt", has_text="End")).to_be_visible()
    assert "".join(str(text) for text in texts(page, "generated")) == "<think></think>Hello"
    # What was not recorded is asked again.
    assert len(server.engine.requests) == (1 if recorded else 2)
    expect(page.get_by_text("was sent again")).to_have_count(0 if recorded else 1)


def test_an_engine_without_log_probabilities_answers_without_them(
    watched: tuple[Page, Watch], server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, watch = watched
    watch.expected.append("status of 400")
    generate = ScriptedEngine.generate

    async def without(engine: ScriptedEngine, request: GenerateRequest) -> AsyncGenerator[EngineOutput]:
        if request.sampling.logprobs is not None:
            raise RequestError("no log-probabilities here", param="logprobs")
        async for output in generate(engine, request):
            yield output

    monkeypatch.setattr(ScriptedEngine, "generate", without)
    server.script("<think></think>", "Hello")
    with page.expect_request("**/page/chat") as first:
        ask(page, "Hi")
    answered(page, "Hello")
    assert first.value.post_data_json["inspect"]
    # It is tried once for each model.
    assert not body_of(page, "Again").get("inspect")
    answered(page, "Hello")


def test_indices_of_a_hostile_server_take_no_memory(page: Page) -> None:
    events = [
        ("token", {"index": 10**9, "id": 1, "text": "x"}),
        ("event", {"index": 0, "type": "tool_start", "call": 10**6, "name": "far", "id": "c"}),
        ("done", {}),
    ]
    stream = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    page.route("**/page/chat", lambda route: route.fulfill(content_type="text/event-stream", body=stream))
    ask(page, "Hi")
    expect(page.locator(".call-name code")).to_have_text(["far"])


def test_an_error_of_the_server_is_shown(page: Page, server: PageServer) -> None:
    server.script("a", "b", fails_after=1)
    page.evaluate("void fllm.inside.ask({messages: [{role: 'user', content: 'Hi'}]})")
    expect(page.locator(".inside [role=alert]")).not_to_be_empty()
