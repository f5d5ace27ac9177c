"""Fields that control reasoning, as they reach the chat template and the response."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_fakes import EOS, FakeReasoningParser, a_server, backend_of, chat, error_of, events

from fllm.chat import ChatTemplate
from fllm.parsing import ReasoningParserBase
from fllm.values import ReasoningLimit
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


class ThinkParser(ReasoningParserBase):
    """Reasoning between <think> tags, of which the prompt may have the first."""

    initial_state = "before"


LIMIT = ReasoningLimit(
    max_tokens=7, opening=("<think>",), closing=("</think>",), end="</think>", inside=False
)


@pytest.mark.parametrize(
    "body",
    [
        {"thinking_token_budget": 7},
        {"thinking_token_budget": 7, "thinking_budget": 9},
        {"thinking_budget": 7},
        {"reasoning": {"max_tokens": 7}},
        {"thinking": {"type": "enabled", "budget_tokens": 7}},
        {"chat_template_kwargs": {"thinking_budget": 7}},
    ],
    ids=str,
)
def test_a_budget_reaches_the_backend_with_the_markers_of_the_parser(body: dict[str, Any]) -> None:
    server = a_server(reasoning=ThinkParser)
    assert chat(server, **body, n=2).status_code == 200
    assert [prompt.sampling.reasoning_limit for prompt in backend_of(server).prompts] == [LIMIT, LIMIT]


@pytest.mark.parametrize(
    "body", [{"thinking_token_budget": -1}, {"thinking_token_budget": None}, {}], ids=str
)
def test_there_is_no_limit_without_a_budget(body: dict[str, Any]) -> None:
    server = a_server(reasoning=ThinkParser)
    chat(server, **body)
    assert backend_of(server).prompts[0].sampling.reasoning_limit is None


def test_there_is_no_limit_if_the_prompt_has_closed_the_reasoning() -> None:
    server = server_with("{{ messages[0].content }}<think></think>", reasoning=ThinkParser)
    assert chat(server, thinking_token_budget=5).status_code == 200
    assert backend_of(server).prompts[0].sampling.reasoning_limit is None


def test_a_template_gets_the_budget_that_it_reads() -> None:
    server = server_with("{{ messages[0].content }}|{{ thinking_budget }}", reasoning=ThinkParser)
    assert prompt_of(server, thinking_token_budget=5) == "Hi|5"


def test_a_variable_of_the_template_alone_needs_no_parser() -> None:
    server = server_with("{{ messages[0].content }}|{{ thinking_budget }}")
    assert prompt_of(server, chat_template_kwargs={"thinking_budget": 5}) == "Hi|5"


@pytest.mark.parametrize(
    ("parser", "body"), [(FakeReasoningParser, {}), (ThinkParser, {"use_beam_search": True, "best_of": 2})]
)
def test_a_budget_that_can_not_be_kept_is_rejected(parser: Any, body: dict[str, Any]) -> None:
    response = chat(a_server(reasoning=parser), thinking_token_budget=5, **body)
    assert (response.status_code, error_of(response)["param"]) == (400, "thinking_token_budget")


def test_an_effort_is_text_and_no_control_token() -> None:
    server = a_server()
    assert chat(server, reasoning_effort=EOS).status_code == 200
    ids = backend_of(server).prompts[-1].token_ids
    assert EOS in server.tokenizer.decode(ids, skip_special_tokens=False)
    assert server.tokenizer.special_ids.isdisjoint(ids)
