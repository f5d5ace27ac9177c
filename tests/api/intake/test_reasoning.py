"""Fields that control reasoning, as they reach the chat template and the response."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import FakeReasoningParser, a_server, backend_of, chat, events

from fllm.chat import ChatTemplate
from fllm_api.app_state import AppState

SWITCHED = "{{ messages[0].content }}|{{ enable_thinking }}|"
EFFORT = "{{ messages[0].content }}|{{ reasoning_effort }}|"


def server_with(source: str, **parts: Any) -> AppState:
    return a_server(template=ChatTemplate.compile({"default": source}, special_tokens={}), **parts)


def prompt_of(server: AppState, **body: Any) -> str:
    response = chat(server, **body)
    assert response.status_code == 200, response.text
    return server.tokenizer.decode(backend_of(server).prompts[-1].token_ids, skip_special_tokens=False)


@pytest.mark.parametrize(
    ("body", "variable"),
    [
        ({}, ""),
        ({"reasoning_effort": "none"}, "False"),
        ({"reasoning_effort": "minimal"}, "True"),
        ({"reasoning_effort": "xhigh"}, "True"),
        ({"reasoning_effort": None, "reasoning": None, "thinking": None}, ""),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, "True"),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, "False"),
        ({"reasoning": {"effort": "none"}}, "False"),
        ({"reasoning": {"enabled": False}}, "False"),
        ({"reasoning": {"enabled": True, "unknown": 1}}, "True"),
        ({"thinking": {"type": "disabled"}}, "False"),
        ({"thinking": {"type": "enabled"}}, "True"),
        ({"thinking": {"type": "adaptive"}}, ""),
        ({"thinking": False}, "False"),
        ({"enable_thinking": False}, "False"),
    ],
    ids=str,
)
def test_fields_turn_the_templates_switch(body: dict[str, Any], variable: str) -> None:
    assert prompt_of(server_with(SWITCHED), **body) == f"Hi|{variable}|"


@pytest.mark.parametrize(
    ("body", "variable"),
    [
        ({"reasoning_effort": "none"}, "low"),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning_effort": "medium"}, "medium"),
        ({"reasoning_effort": "xhigh"}, "high"),
        ({"reasoning": {"effort": "high"}}, "high"),
        ({"reasoning_effort": "low", "reasoning": {"effort": "high"}}, "low"),
        ({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "x"}}, "x"),
    ],
    ids=str,
)
def test_the_effort_reaches_a_template_that_reads_it(body: dict[str, Any], variable: str) -> None:
    assert prompt_of(server_with(EFFORT), **body) == f"Hi|{variable}|"


def test_the_request_takes_precedence_over_the_servers_default() -> None:
    server = server_with(SWITCHED, config={"default_chat_template_kwargs": {"enable_thinking": True}})
    assert prompt_of(server) == "Hi|True|"
    assert prompt_of(server, reasoning_effort="none") == "Hi|False|"


@pytest.mark.parametrize("body", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}], ids=str)
def test_reasoning_can_be_left_out_of_the_response(body: dict[str, Any]) -> None:
    server = a_server(["Hm", ".", "|", "Yes"], reasoning=FakeReasoningParser)
    whole = chat(server, **body).json()
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Yes"}
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 2
    chunks = events(chat(server, stream=True, **body))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Yes"}, {}]
