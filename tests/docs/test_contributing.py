"""The example parser in CONTRIBUTING.md works."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT

from fllm import ParserContext, Text, ToolArguments, ToolStart
from fllm.config import PluginConfig
from fllm.events import merge_events
from fllm.plugins.loader import load_plugins

PAGE = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture
def module(tmp_path: Path) -> Any:
    code = re.search(r"^```python\n(# my_parsers.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert code
    file = tmp_path / "my_parsers.py"
    file.write_text(code[1])
    plugins = load_plugins(PluginConfig(paths=(str(file),)))
    assert plugins.reports[-1].error is None
    parser = plugins.tool_parsers.load("call")
    yield types.SimpleNamespace(parser=parser)
    del sys.modules["my_parsers"]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_example_parser_works(module: Any, size: int) -> None:
    text = 'Hello <call>{"name": "f", "arguments": {"x": 1}}</call> and <b>'
    parser = module.parser(ParserContext())
    events = [event for i in range(0, len(text), size) for event in parser.feed(text[i : i + size])]
    events += parser.finish()
    assert merge_events(events) == [
        Text("Hello "),
        ToolStart(0, "f"),
        ToolArguments(0, '{"x": 1}'),
        Text(" and <b>"),
    ]
