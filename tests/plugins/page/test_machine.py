"""The machine in a browser: requests, refusals, and a server that is gone for a while."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect
from support.page_browser import PageServer, Watch

from fllm import Client, EngineStats, ModelDescription, ServerDescription
from fllm.values import ModelStats, ReplicaStats
from fllm_page.machine import read_machine
from fllm_page.request_log import RequestLog


def test_a_running_request_and_a_refused_one_are_shown(page: Page, server: PageServer) -> None:
    server.script("a", "b", stalls_after=1)
    page.evaluate("void fllm.inside.ask({messages: [{role: 'user', content: 'Hi'}]})")
    refused = page.request.post(f"{server.url}v1/chat/completions", data={"messages": [], "n": 0})
    assert refused.status == 400
    page.get_by_role("tab", name="Machine").click()
    row = page.locator("table.requests tbody tr").filter(has_text="running")
    expect(row).to_contain_text("/page/chat")
    log = page.get_by_role("region", name="Refused requests").get_by_role("row")
    expect(log.filter(has_text="400")).to_contain_text("POST /v1/chat/completions")
    expect(page.get_by_role("img", name=re.compile("^Requests: running 1, waiting 0"))).to_be_visible()
    page.evaluate("fllm.view('inside')")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("tab", name="Machine").click()
    expect(row).to_have_count(0)


def test_phases_are_bars_and_numbers(page: Page, server: PageServer) -> None:
    server.script("a", "b")
    page.request.post(
        f"{server.url}v1/chat/completions", data={"messages": [{"role": "user", "content": "Hi"}]}
    )
    page.get_by_role("tab", name="Machine").click()
    row = page.locator("table.requests tbody tr").first
    expect(row).to_contain_text("/v1/chat/completions")
    expect(row.locator("svg.phases")).to_have_attribute("aria-hidden", "true")
    numbers = row.locator("td.number").all_text_contents()
    assert all(re.fullmatch(r"\d+ ms|[\d.]+ s", each) for each in numbers[:3]), numbers
    assert numbers[3:] == ["19", "0", "2"]  # tokens: prompt, cached, generated


def test_the_server_is_asked_each_second_only_while_the_tab_is_shown(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: "page/machine" in request.url and asked.append(request.url))
    page.get_by_role("tab", name="Machine").click()
    with page.expect_request("**/page/machine*"):
        pass
    page.get_by_role("tab", name="Chat").click()
    before = len(asked)
    page.wait_for_timeout(1500)
    assert before >= 1
    assert len(asked) == before


def test_a_server_that_was_gone_is_shown_again(watched: tuple[Page, Watch]) -> None:
    page, watch = watched
    watch.expected.append("ERR_FAILED")
    page.get_by_role("tab", name="Machine").click()
    expect(page.get_by_role("region", name="Models")).to_be_visible()
    page.route("**/page/machine*", lambda route: route.abort())
    banner = page.locator(".machine .banner")
    expect(banner).to_contain_text("does not answer")
    page.unroute("**/page/machine*")
    expect(banner).to_have_count(0)


def test_replicas_are_those_of_all_models() -> None:
    replica = ReplicaStats(name="replica-0", state="drained", stats=EngineStats(), total_requests=3)
    engine = EngineStats(replicas=(replica,))
    models = {
        "a": ModelStats(state="loaded", engine=engine),
        "b": ModelStats(state="unloaded"),
    }
    for stats, model in ((engine, "only"), (EngineStats(models=models), "a")):
        log = RequestLog()
        log.on_interval(stats)
        described = ServerDescription(models=[ModelDescription(name="only")])
        (found,) = read_machine(log, described, Client("x", "", sees_all=True), since=0).replicas
        assert (found.name, found.model, found.state, found.total_requests) == (
            "replica-0",
            model,
            "drained",
            3,
        )
