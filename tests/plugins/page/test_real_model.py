"""The page with the embedded model: a grammar, the prefix cache, one seed twice, models that are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from support.page_browser import TIMEOUT, visited

from fllm.model import locate
from fllm.testing import Server, serving

ADMIN_KEY = "sk-admin"
SCHEMA = {
    "type": "object",
    "properties": {"capital": {"enum": ["Paris", "Rome"]}},
    "required": ["capital"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def models() -> Iterator[Server]:
    """Start a server that loads two models on demand."""
    with serving(
        *("--model", f"small={locate().location}", "--model", f"other={locate().location}"),
        *("--max-model-len", "512", "--admin-key", ADMIN_KEY),
    ) as server:
        yield server


@pytest.fixture
def page(shared: Page, models: Server) -> Iterator[Page]:
    """Open the page."""
    with visited(shared, f"{models.url}/", "status of 401"):  # a wrong admin key
        shared.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        yield shared
        expect.set_options(timeout=TIMEOUT)


def look_inside(page: Page, text: str, **body: Any) -> dict[str, Any]:
    """Ask in the tab "Look inside"; return the trace."""
    request = {"model": "small", "messages": [{"role": "user", "content": text}], "temperature": 0, **body}
    trace: dict[str, Any] = page.evaluate("body => fllm.inside.ask(body)", request)
    assert trace["error"] is None
    return trace


def model(page: Page, name: str) -> Locator:
    """Return the row of a model."""
    return page.get_by_role("region", name="Models").get_by_role("row").filter(has_text=name)


def test_tokens_that_the_grammar_forces_are_marked(page: Page) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    trace = look_inside(page, "What is the capital of France?", response_format=schema, max_tokens=40)
    tokens = trace["outputs"][0]["tokens"]
    forced = [str(at) for at, token in enumerate(tokens) if token["forced"]]
    assert forced
    assert all(token["allowed"] >= 1 for token in tokens)
    shown = page.locator("#view-inside [id^=generated-].forced")
    expect(shown).to_have_count(len(forced))
    assert shown.evaluate_all("all => all.map(each => each.dataset.at)") == forced
    shown.first.click()
    detail = page.get_by_label("The selected token", exact=True)
    expect(detail).to_contain_text("The grammar allowed only this token.")
    expect(page.get_by_test_id("grammar")).to_contain_text(f"it forced {len(forced)}.")


def test_the_part_of_the_prompt_from_the_prefix_cache_is_marked(page: Page) -> None:
    text = "List the colours of the rainbow, from red to violet, one after the other."
    look_inside(page, text, max_tokens=1)
    trace = look_inside(page, text, max_tokens=1)
    cached = trace["done"]["usage"]["cached_tokens"]
    assert 0 < cached < len(trace["prompt"]["tokens"])
    expect(page.locator(".prompt .token-flow .cached")).to_have_count(cached)
    expect(page.locator(".prompt")).to_contain_text(f"The first {cached} came from the prefix cache.")
    expect(page.locator("#prompt-0")).to_have_class("token special cached")


def test_the_same_seed_gives_the_same_text_and_another_temperature_may_not(page: Page) -> None:
    page.get_by_role("tab", name="Side by side").click()
    for name in ("A", "B"):
        side = page.get_by_role("region", name=f"Side {name}")
        side.get_by_label("Model").select_option("small")
        side.get_by_label("Temperature").fill("1")
        side.get_by_label("Max tokens").fill("24")
    page.get_by_label("Prompt", exact=True).fill("Tell me a story.")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Both answers are the same.")).to_be_visible()
    page.get_by_role("region", name="Side B").get_by_label("Temperature").fill("2")
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("The answers differ from token")).to_be_visible()
    expect(page.locator(".side .differs")).to_have_count(2)


def test_models_are_loaded_and_unloaded_with_the_admin_key(page: Page) -> None:
    page.get_by_role("tab", name="Machine").click()
    row = model(page, "other")
    expect(row).to_contain_text("unloaded")
    row.get_by_role("button", name="Load other").click()
    key = page.get_by_role("dialog", name="Admin key")
    key.get_by_label("Key").fill("sk-wrong")
    page.keyboard.press("Enter")
    expect(key.get_by_role("alert")).to_contain_text("refused this admin key")
    key.get_by_label("Key").fill(ADMIN_KEY)
    page.keyboard.press("Enter")
    expect(row.locator(".state")).to_have_text("loaded")
    row.get_by_role("button", name="Pin other").click()
    expect(row).to_contain_text("pinned")
    row.get_by_role("button", name="Unpin other").click()
    row.get_by_role("button", name="Unload other").click()
    expect(row.locator(".state")).to_have_text("unloaded")
