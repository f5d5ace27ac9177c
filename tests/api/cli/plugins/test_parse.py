"""``furiosa-llm plugins parse``: the events of a recorded answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fllm import PluginError
from fllm.errors import ConfigError
from fllm.events import ParserEvent
from fllm_api.cli.plugins.parse import parse
from fllm_parsers.tools.hermes import HermesParser

CALL = "<tool_call>\n<function=f>\n<parameter=n>\n5\n</parameter>\n</function>\n</tool_call>"


def parsed(*arguments: str, text: str) -> list[str]:
    """Return the lines that the command prints for a text on standard input."""
    done = CliRunner().invoke(parse, arguments, input=text, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_the_events_of_a_tool_call_parser_are_printed() -> None:
    assert parsed("qwen3_coder", text=f"So:\n{CALL}") == [
        r"Text(text='So:\n')",
        "ToolStart(index=0, name='f', id=None)",
        """ToolArguments(index=0, text='{"n": "5"}')""",
    ]


def test_the_tools_of_a_request_give_arguments_their_types(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tools.write_text(json.dumps([{"type": "function", "function": {"name": "f", "parameters": schema}}]))
    lines = parsed("qwen3_coder", "--tools", str(tools), text=CALL)
    assert lines[-1] == """ToolArguments(index=0, text='{"n": 5}')"""


def test_a_reasoning_parser_reads_the_text_first() -> None:
    lines = parsed("qwen3_coder", "--reasoning-parser", "qwen3", text=f"Hm.</think>So: {CALL}")
    assert lines[:3] == [
        "Reasoning(text='Hm.')",
        "Text(text='So: ')",
        "ToolStart(index=0, name='f', id=None)",
    ]


def test_a_name_of_no_tool_call_parser_is_one_of_a_reasoning_parser() -> None:
    assert parsed("deepseek_r1", text="Hm.</think>So.") == ["Reasoning(text='Hm.')", "Text(text='So.')"]


def test_a_file_can_be_named(tmp_path: Path) -> None:
    file = tmp_path / "answer.txt"
    file.write_text("Hello <tool", encoding="utf-8")
    assert parsed("hermes", str(file), text="") == ["Text(text='Hello <tool')"]


def test_an_unknown_parser_and_tools_that_are_not_tools_are_reported(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, PluginError), match=r"^there is no parser 'nobody'"):
        parsed("nobody", text="")
    tools = tmp_path / "tools.json"
    tools.write_text('[{"function": {}}]')
    with pytest.raises(ConfigError, match=r"--tools: .*name"):
        parsed("hermes", "--tools", str(tools), text="")


def test_an_error_of_a_parser_is_one_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, text: str) -> list[ParserEvent]:
        raise KeyError("oops")

    monkeypatch.setattr(HermesParser, "feed", fail)
    place = r"^the parser 'hermes' raised KeyError: 'oops' \(.*test_parse\.py:\d+\)$"
    with pytest.raises(PluginError, match=place):
        parsed("hermes", text="x")
    file = tmp_path / "samples.jsonl"
    file.write_text('{"parser": "hermes", "kind": "tool-call", "text": "x"}\n')
    with pytest.raises(PluginError, match=place):
        parsed("--samples", str(file), text="")


def test_json_is_one_sample_for_each_parser() -> None:
    lines = parsed("qwen3_coder", "--reasoning-parser", "qwen3", "--json", text=f"Hm.</think>{CALL}")
    first, second = map(json.loads, lines)
    assert (first["parser"], first["kind"]) == ("qwen3", "reasoning")
    assert first["events"][0] == {"type": "reasoning", "text": "Hm."}
    assert second["text"] == CALL
    assert [event["type"] for event in second["events"]] == ["tool_start", "tool_arguments"]


def test_samples_are_parsed_and_compared_with_what_they_record(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text("\n".join(parsed("qwen3_coder", "--json", text=CALL)) + "\n")
    lines = parsed("--samples", str(file), text="")
    assert lines[:2] == ["sample 1: tool-call parser qwen3_coder", "ToolStart(index=0, name='f', id=None)"]
    assert parsed("--samples", str(file), "--json", text="") == file.read_text().splitlines()
    done = CliRunner().invoke(parse, ["--samples", str(file), "hermes"])
    assert done.exit_code == 1
    assert "recorded:\nToolStart(index=0, name='f', id=None)" in done.output


def test_the_line_of_an_invalid_sample_and_a_missing_name_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_text('{"parser": "hermes", "kind": "tool-call", "text": "a"}\n\n{"parser": "hermes"}\n')
    with pytest.raises(ConfigError, match=r"samples.jsonl:3: this is not a sample "):
        parsed("--samples", str(file), text="")
    assert CliRunner().invoke(parse, []).exit_code == 2
    assert CliRunner().invoke(parse, ["--samples", str(file), "--reasoning-parser", "qwen3"]).exit_code == 2
