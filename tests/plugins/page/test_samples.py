"""`POST /page/samples`: what each parser received and emitted."""

from __future__ import annotations

import msgspec

import fllm_page.plugin
from fllm import Reasoning, Text, ToolArguments, ToolStart
from fllm.parsing import ParserSample
from fllm.testing import ScriptedServer

REQUEST = {
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [{"type": "function", "function": {"name": "f"}}],
}


def samples(text: str, **parsers: str) -> list[ParserSample]:
    """Return the samples of the parsers for a text."""
    server = ScriptedServer(fllm_page.plugin, **parsers)
    response = server.ask("POST", "/page/samples", json={**REQUEST, "text": text})
    assert response.status == 200
    assert server.engine.requests == []  # the model is not asked
    return msgspec.convert(response.json()["samples"], list[ParserSample])


def test_each_parser_has_a_sample_of_what_it_received() -> None:
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    reasoning, tools = samples(
        f"<think>Hm.</think>So: {call}", tool_call_parser="hermes", reasoning_parser="glm45"
    )
    assert (reasoning.parser, reasoning.kind, reasoning.text) == (
        "glm45",
        "reasoning",
        f"<think>Hm.</think>So: {call}",
    )
    assert reasoning.events == (Reasoning("Hm."), Text(f"So: {call}"))
    assert reasoning.prompt_end.endswith("<assistant>")
    assert [tool.function.name for tool in tools.tools] == ["f"]
    assert (tools.parser, tools.kind, tools.text) == ("hermes", "tool-call", f"So: {call}")
    assert tools.events == (Text("So: "), ToolStart(0, "f"), ToolArguments(0, "{}"))


def test_without_a_parser_the_sample_has_the_text_alone() -> None:
    (sample,) = samples("Hello")
    assert (sample.parser, sample.text, sample.events) == ("raw", "Hello", None)


def test_a_text_that_no_model_would_write_is_refused() -> None:
    body = {**REQUEST, "text": "x" * (2**20 + 1)}
    response = ScriptedServer(fllm_page.plugin).ask("POST", "/page/samples", json=body)
    assert response.status == 400
    assert response.json()["error"]["param"] == "text"


def test_a_request_without_the_text_is_refused() -> None:
    response = ScriptedServer(fllm_page.plugin).ask("POST", "/page/samples", json=REQUEST)
    assert response.status == 400
    assert response.json()["error"]["param"] == "text"
