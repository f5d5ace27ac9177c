"""Samples of parsers in files of lines of JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from fllm import ParserContext, Reasoning, Text, Tool
from fllm.errors import ConfigError
from fllm.parsing import ParserSample, read_samples
from fllm.plugins.loader import load_plugins
from fllm.testing import ReasoningParserContract, ToolParserContract
from fllm_parsers.tools.hermes import HermesParser


def sample(context: ParserContext) -> ParserSample:
    return ParserSample.from_context(
        context,
        parser="qwen3",
        kind="reasoning",
        text="Hm.</think>So.",
        events=[Reasoning("H"), Reasoning("m."), Text("So.")],
        model="m",
    )


def test_a_sample_survives_a_file_with_all_that_its_parser_read(tmp_path: Path) -> None:
    context = ParserContext(
        prompt="x" * 100 + "<think>\n", tools=(Tool("f"),), template_kwargs={"enable_thinking": True}
    )
    written = sample(context)
    assert written.events == (Reasoning("Hm."), Text("So."))
    assert len(written.prompt_end) == 64
    file = tmp_path / "samples.jsonl"
    file.write_bytes(written.to_json() + b"\n\n" + written.to_json())
    assert read_samples(file) == [written, written]
    again = written.context()
    assert again.prompt.endswith("<think>\n")
    assert (again.tools[0].name, again.template_kwargs) == ("f", {"enable_thinking": True})


def test_a_sample_is_parsed_again_as_it_was_recorded() -> None:
    parser = load_plugins().reasoning_parsers.load("qwen3")
    recorded = sample(ParserContext(prompt="<think>\n"))
    assert recorded.parse(parser(recorded.context())) == recorded.events


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"parser": "x"}', b'{"parser": "x", "text": "\xff"}', b"[" * 100_000]
)
def test_a_line_that_is_not_a_sample_is_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_bytes(b'{"parser": "x", "kind": "reasoning", "text": ""}\n' + line)
    with pytest.raises(ConfigError, match=r"samples\.jsonl:2: this is not a sample"):
        read_samples(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.jsonl' can't be read"):
        read_samples(tmp_path / "nothing.jsonl")


def test_a_contract_requires_the_events_that_a_file_records(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    wrong = ParserSample(parser="hermes", kind="tool-call", text="no call", events=(Text("another"),))
    file.write_bytes(sample(ParserContext()).to_json() + b"\n" + wrong.to_json())

    class Contract(ToolParserContract):
        parser = HermesParser
        samples_file = file

    assert Contract().all_samples() == ["no call"]
    with pytest.raises(AssertionError, match="gives other events"):
        Contract().test_one_character_at_a_time_gives_the_same_events()

    class Empty(ReasoningParserContract):
        parser = HermesParser
        markers = ()

    with pytest.raises(AssertionError, match="there are no samples"):
        Empty().all_samples()
