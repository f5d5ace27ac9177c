"""docs/parsers.md lists every parser, and its examples work."""

import re
from pathlib import Path

from support.paths import DOCS

from fllm import ParserContext, ParserEntry, Reasoning, Text, Tool, ToolArguments, ToolStart
from fllm.config import PluginConfig
from fllm.plugins.loader import Plugins, load_plugins
from fllm.plugins.registry import Registry
from fllm.testing import parse, plugins_with
from fllm_parsers import plugin

PAGE = (DOCS / "parsers.md").read_text("utf-8")
ROW = re.compile(r"^\| `([^`]+)` \| .* \| (yes|) \|$", re.MULTILINE)
BUILT_IN = plugins_with(plugin, installed=False)


def listed(heading: str) -> dict[str, bool]:
    """Return the names under a heading, and whether ``auto`` can choose them."""
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    return {name: bool(auto) for name, auto in ROW.findall(section)}


def registered(registry: Registry) -> dict[str, bool]:
    entries = [each.entry for each in registry]
    return {entry.name: isinstance(entry, ParserEntry) and bool(entry.evidence) for entry in entries}


def test_every_parser_is_in_the_table() -> None:
    assert listed("Tool calls") == registered(BUILT_IN.tool_parsers)
    assert listed("Reasoning") == registered(BUILT_IN.reasoning_parsers)


def example(name: str, directory: Path) -> Plugins:
    """Load the plugins, including the example ``name``."""
    code = re.search(rf"^```python\n(# {name}\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert code
    (directory / name).write_text(code[1])
    return load_plugins(PluginConfig(paths=(str(directory / name),)))


def test_the_example_of_reasoning_works(tmp_path: Path) -> None:
    parser = example("acme_thoughts.py", tmp_path).reasoning_parsers.load("acme")
    made = parse(parser(ParserContext()), ["<thought>\na\n</thought>\n\nb"])
    assert made == [Reasoning("a"), Text("\n\nb")]


def test_the_example_of_tool_calls_works(tmp_path: Path) -> None:
    parser = example("acme_tags.py", tmp_path).tool_parsers.load("acme_tags")
    tools = (Tool("f", parameters={"properties": {"n": {"type": "integer"}}}),)
    made = parse(parser(ParserContext(tools=tools)), ["So <acme f><arg n>5</arg><arg s>5</arg></acme>"])
    assert made == [Text("So "), ToolStart(0, "f"), ToolArguments(0, '{"n": 5, "s": "5"}')]
