"""Chat templates in requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from support.api_fakes import a_server, app_of, ask, backend_of, chat, error_of

from fllm.chat import RequestTemplates, TemplateSettings
from fllm.chat.request_templates import RENDER_LIMITS
from fllm_api.app_state import AppState

OWN = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
BOMB = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(scope="module")
def server() -> Iterator[AppState]:
    templates = RequestTemplates(TemplateSettings({}, "auto"), replace(RENDER_LIMITS, cpu_seconds=0.3))
    yield a_server(request_templates=templates)
    templates.stop()


def body(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}


def prompt(server: AppState) -> str:
    return server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)


def test_a_template_in_a_request_is_rejected_unless_enabled() -> None:
    error = error_of(ask(a_server(), "POST", "/v1/chat/completions", json=body(chat_template=OWN)))
    assert (error["param"], error["code"]) == ("chat_template", "unsupported_parameter")
    assert "--trust-request-chat-template" in error["message"]


def test_a_template_in_a_request_replaces_the_servers(server: AppState) -> None:
    chat(server, chat_template=OWN)
    assert prompt(server).startswith("[")
    chat(server)
    assert prompt(server).startswith("<user>")


def test_a_template_in_chat_template_kwargs_is_only_a_variable(server: AppState) -> None:
    chat(server, chat_template_kwargs={"chat_template": OWN})
    assert prompt(server).startswith("<user>")


@pytest.mark.parametrize("template", [BOMB, "{% if %}", "{{ 1 / 0 }}", 5, ["x"], {"a": "b"}, "x" * 300_000])
def test_an_invalid_template_is_a_400_for_its_field(template: object, server: AppState) -> None:
    answer = ask(server, "POST", "/v1/chat/completions", json=body(chat_template=template))
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "chat_template"


def test_a_slow_template_does_not_delay_requests_without_one(server: AppState) -> None:
    done: list[str] = []

    async def one(client: httpx.AsyncClient, name: str, **more: Any) -> None:
        await client.post("/v1/chat/completions", json=body(max_tokens=1, **more), timeout=60)
        done.append(name)

    async def go() -> None:
        transport = httpx.ASGITransport(app_of(server))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            bombs = [one(client, "bomb", chat_template=BOMB + str(i)) for i in range(40)]
            tasks = [asyncio.create_task(each) for each in bombs]
            await asyncio.sleep(0.1)
            await one(client, "plain")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(go())
    assert done.index("plain") <= 2
